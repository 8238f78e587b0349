"""split: shares that add up to the bit and part under training; copies that are pulled apart at once."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.passes.split import Split
from tests.preserved import assert_preserved

ROWS = torch.linspace(-1, 2, 15).reshape(5, 3)
FROZEN = "frozen: a model output (at `output`)"


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3))


@pytest.mark.parametrize(
    ("name", "mutation"),
    [
        ("graphgrow:resnet", "split(stem, units=[0, 3], apart=true)"),
        ("graphgrow:resnet", "split(stages.1.0.conv1, apart=true)"),
        ("graphgrow:mobilenet", "split(stem.0, apart=true)"),
        ("graphgrow:mlp", "split(layers.0, units=[1], copies=3, apart=true)"),
    ],
)
def test_the_function_stays(name: str, mutation: str) -> None:
    graph = gg.trace(name)
    child = gg.apply(graph, mutation, seed=3)
    assert_preserved(graph, child)
    assert gg.verify(graph, child, batch_sizes=(2,)).preserved is True


def test_what_is_read_with_zero_is_then_read_with_opposite_weights_of_a_fresh_deviation() -> None:
    graph = gg.trace(net(), torch.randn(4, 5))
    wider = gg.apply(graph, "widen(0, extra=2)", seed=1)
    child = gg.apply(wider, "split(0, units=[6, 7], apart=true)", seed=1)
    assert_preserved(wider, child)
    reading, writing = child.module.get_parameter("3.weight"), child.module.get_parameter("0.weight")
    assert reading.shape == (40, 10)
    assert torch.equal(reading[:, 6:8], -reading[:, 8:])
    assert torch.equal(writing[6:8], writing[8:])
    assert float(reading[:, 6:8].detach().std()) == pytest.approx(math.sqrt(2 / 10), rel=0.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_weight_keeps_its_sum_to_the_bit(dtype: torch.dtype) -> None:
    graph = gg.trace(net().to(dtype), torch.randn(4, 5, dtype=dtype))
    old = graph.module.get_parameter("3.weight").detach()
    new = gg.apply(graph, "split(0, apart=true)", seed=1).module.get_parameter("3.weight").detach()
    assert torch.equal(new[:, :6] + new[:, 6:], old)
    shares = (new[:, :6] / old).double()
    assert 0.49 < float(shares.min()) < 0.6
    assert 1.9 < float(shares.max()) < 2.01


def test_copies_part_at_once() -> None:
    """After one step of Adam, whose size does not depend on the gradient's, the copies must have gone two ways."""

    def distance(mutation: str) -> float:
        graph = gg.trace(net(), torch.randn(4, 5))
        child = gg.apply(graph, mutation, seed=1)
        optimizer = torch.optim.Adam(child.module.parameters(), lr=1e-2)
        inputs = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
        child.module(inputs).square().mean().backward()
        optimizer.step()
        weight = child.module.get_parameter("0.weight").detach()
        return float((weight[:6] - weight[6:]).norm())

    assert distance("split(0, apart=true)") > 2 * distance("split(0)")


@pytest.fixture
def graph() -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), ROWS)


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("split(0)", [0, 1, 2, 3]),
        ("split(0, copies=3)", [0, 1, 2, 3, 0, 1, 2, 3]),
        ("split(0, units=[3, 1])", [3, 1]),
        ("split(0, units=[2], copies=4)", [2, 2, 2]),
    ],
)
def test_units_are_copied_and_their_shares_add_up_to_the_bit(graph: gg.Graph, text: str, copied: list[int]) -> None:
    grown = gg.apply(graph, text, seed=3).module
    first, last = graph.module.get_parameter("0.weight"), graph.module.get_parameter("2.weight")
    assert torch.equal(grown.get_parameter("0.weight"), torch.cat([first, first[copied]]))
    shares = grown.get_parameter("2.weight")
    units = [*range(4), *copied]
    for unit in range(4):
        parts = [shares[:, i] for i, origin in enumerate(units) if origin == unit]
        whole = sum(reversed(parts[1:]), torch.zeros(2)) + parts[0]  # from the smallest to the largest share
        assert torch.equal(whole, last[:, unit])
        assert all((part.abs() <= last[:, unit].abs()).all() for part in parts)


def test_copies_are_read_with_different_shares(graph: gg.Graph) -> None:
    shares = gg.apply(graph, "split(0)", seed=3).module.get_parameter("2.weight")
    ratio = (shares[:, :4] / (shares[:, :4] + shares[:, 4:])).flatten()
    assert bool(((ratio >= 0.5) & (ratio <= 1)).all())
    assert ratio.unique().numel() == ratio.numel()


def test_one_is_offered_for_each_group_that_can_grow(graph: gg.Graph) -> None:
    offered = graph.mutations("split")
    assert list(offered) == [Split("0")]
    assert [(refusal.site, refusal.reason) for refusal in offered.refusals] == [("2", FROZEN)]


def test_others_choose_some_units_in_order(graph: gg.Graph) -> None:
    drawn = {Split("0").varied(graph, random.Random(seed)).units for seed in range(40)}
    assert all(units == tuple(sorted(set(units))) and set(units) <= set(range(4)) for units in drawn)
    assert {len(units) for units in drawn} == {1, 2, 3, 4}
