"""shrink-kernel: rings of zeros go, with as much padding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exact, grown
from tests.preserved import assert_same_bits
from tests.rewrite.small_models import Forward

LAYERS: list[tuple[nn.Module, tuple[int, ...], int]] = [
    (nn.Conv1d(2, 3, 3, padding=1), (9,), 5),
    (nn.Conv2d(2, 3, 1), (6, 5), 3),
    (nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2), (7, 6), 7),
    (nn.Conv2d(2, 3, (1, 3), padding=(0, 2), dilation=2), (6, 7), 5),
    (nn.Conv2d(2, 3, 3, padding="same"), (6, 7), 5),
    (nn.Conv3d(2, 3, 3), (5, 5, 5), 5),
    (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (5, 4), 5),
]


def traced(layer: nn.Module, positions: tuple[int, ...]) -> Graph:
    model = Forward(lambda m, x: m.site(x).tanh(), site=layer).double()
    return gg.trace(model, torch.randn(2, 2, *positions).double())


@pytest.mark.parametrize(("layer", "positions", "to"), LAYERS, ids=repr)
def test_what_enlarge_kernel_put_on_goes_again(layer: nn.Module, positions: tuple[int, ...], to: int) -> None:
    graph = traced(layer, positions)
    child = gg.apply(graph, f"enlarge-kernel(site, to={to})")
    sizes = ", ".join(map(str, layer.kernel_size))  # type: ignore[arg-type]
    text = f"shrink-kernel(site, to=[{sizes}])"
    assert [str(m) for m in child.mutations("shrink-kernel")] == [text]
    back = grown(child, text)
    assert_exact(child, back, batches=(2,), tolerance=1e-15)  # a sum of other length may be taken in another order
    assert gg.verify(child, back).preserved is True
    assert_same_bits(back.module, graph.module)
    site = back.module.get_submodule("site")
    assert (site.kernel_size, site.padding) == (layer.kernel_size, layer.padding) or layer.padding == "valid"
    assert gg.apply(without_data(child), text).text() == back.text()


@pytest.mark.parametrize("row", [1, 5])
def test_a_tap_that_is_not_zero_stays(row: int) -> None:
    graph = gg.apply(traced(nn.Conv2d(2, 3, 3, padding=1), (6, 5)), "enlarge-kernel(site, to=7)")
    with torch.no_grad():
        graph.module.get_parameter("site.weight")[0, 0, row, 3] = 1e-30
    assert [str(m) for m in graph.mutations("shrink-kernel")] == ["shrink-kernel(site, to=[5, 3])"]
    with pytest.raises(gg.Declined, match="an outer tap of `site` is not zero"):
        gg.apply(graph, "shrink-kernel(site, to=[3, 3])")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("shrink-kernel(site, to=[3])", gg.MutationError, "smaller sizes are wanted"),
        ("shrink-kernel(site, to=[7, 5])", gg.MutationError, "smaller sizes are wanted"),
        ("shrink-kernel(site, to=[5, 5])", gg.MutationError, "has that kernel already"),
        ("shrink-kernel(site, to=[4, 5])", gg.Declined, "parity"),
        ("shrink-kernel(site, to=[1, 1])", gg.Declined, "would put out more"),
    ],
)
def test_refusals(text: str, error: type[Exception], said: str) -> None:
    layer = nn.Conv2d(2, 3, 5, padding=1)
    nn.init.zeros_(layer.weight)
    with pytest.raises(error, match=said):
        gg.apply(traced(layer, (8, 9)), text)


def test_dilated_taps_reach_beyond_the_padding() -> None:
    layer = nn.Conv1d(2, 3, 3, padding=1, dilation=2)
    nn.init.zeros_(layer.weight)
    with pytest.raises(gg.Declined, match="would put out more"):
        gg.apply(traced(layer, (9,)), "shrink-kernel(site, to=[1])")


def test_without_padding_nothing_is_offered() -> None:
    layer = nn.Conv2d(2, 3, 3)
    nn.init.zeros_(layer.weight)
    assert len(traced(layer, (8, 9)).mutations("shrink-kernel")) == 0


def test_without_data_the_kernel_is_offered_as_it_is() -> None:
    assert list(without_data(traced(nn.Conv2d(2, 3, 3, padding=1), (6, 5))).mutations("shrink-kernel")) == []


def test_optimizer_state_comes_back() -> None:
    graph = traced(nn.Conv2d(2, 3, 3, padding=1), (6, 5))
    optimizer = torch.optim.AdamW(graph.module.parameters())
    graph.module(torch.randn(2, 2, 6, 5).double()).square().sum().backward()
    optimizer.step()
    before = {n: copy.deepcopy(optimizer.state[p]) for n, p in graph.module.named_parameters()}
    back = gg.apply(graph, ["enlarge-kernel(site, to=5)", "shrink-kernel(site, to=[3, 3])"], optimizer=optimizer)
    for name, parameter in back.module.named_parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[parameter][key], before[name][key])
