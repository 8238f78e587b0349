"""widen: fresh rows, reading weights of zero, and what is offered."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.passes.widen import Widen

ROWS = torch.linspace(-1, 2, 15).reshape(5, 3)
FROZEN = "frozen: a model output (at `output`)"


def traced(width: int) -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)), ROWS)


def test_new_units_are_fresh_and_read_with_zero() -> None:
    graph = traced(4)
    grown = gg.apply(graph, "widen(0, extra=2000)", seed=3).module
    first, last = grown.get_parameter("0.weight"), grown.get_parameter("2.weight")
    assert torch.equal(first[:4], graph.module.get_parameter("0.weight"))
    assert torch.equal(last[:, :4], graph.module.get_parameter("2.weight"))
    assert not bool(last[:, 4:].any())
    assert not bool(grown.get_parameter("0.bias")[4:].any())
    torch.testing.assert_close(first[4:].std(), torch.tensor((2 / 3) ** 0.5), rtol=0.05, atol=0)  # He et al. 2015


@pytest.mark.parametrize(
    ("layer", "positions", "fan"),
    [(nn.Linear(64, 4), (), 64), (nn.Conv1d(64, 4, 3), (5,), 64 * 3), (nn.ConvTranspose1d(64, 4, 3), (5,), 64 * 3)],
    ids=["linear", "convolution", "transposed"],
)
def test_new_rows_are_drawn_for_as_many_numbers_as_each_sums(
    layer: nn.Module, positions: tuple[int, ...], fan: int
) -> None:
    """He et al. 2015, https://arxiv.org/abs/1502.01852."""
    model = nn.Sequential(layer, nn.Conv1d(4, 2, 1) if positions else nn.Linear(4, 2))
    child = gg.apply(gg.trace(model, torch.randn(2, 64, *positions)), "widen(0, extra=400)").module
    weight = child.get_parameter("0.weight")
    new = weight[:, 4:] if isinstance(layer, nn.ConvTranspose1d) else weight[4:]
    torch.testing.assert_close(new.std(), torch.tensor((2 / fan) ** 0.5), rtol=0.03, atol=0)


def test_layers_say_what_sizes_they_have() -> None:
    child = gg.apply(traced(4), "widen(0, extra=3)").module
    for name in ("0", "2"):
        layer = child.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        assert (layer.out_features, layer.in_features) == tuple(layer.weight.shape)


@pytest.mark.parametrize(("width", "extra"), [(1, 1), (2, 1), (4, 2), (7, 3)])
def test_half_as_many_are_offered_and_one_at_least(width: int, extra: int) -> None:
    offered = traced(width).mutations("widen")
    assert list(offered) == [Widen("0", extra)]
    assert [(refusal.site, refusal.reason) for refusal in offered.refusals] == [("2", FROZEN)]


@pytest.mark.parametrize("extra", [0, -1])
def test_at_least_one(extra: int) -> None:
    with pytest.raises(gg.MutationError, match="at least 1 unit must be added"):
        gg.apply(traced(4), Widen("0", extra))


def test_others_add_up_to_as_many_as_there_are() -> None:
    graph = traced(3)
    assert {Widen("0", 1).varied(graph, random.Random(seed)).extra for seed in range(40)} == {1, 2, 3}
