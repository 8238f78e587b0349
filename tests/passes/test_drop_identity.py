"""drop-identity: layers that pass their input on go, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exact, grown
from tests.rewrite.small_models import Forward


def square(layer: Any, **changed: float) -> nn.Module:
    """A square map that starts as the identity, with single entries changed."""
    with torch.no_grad():
        if isinstance(layer, nn.Linear):
            nn.init.eye_(layer.weight)
        else:
            nn.init.dirac_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        for name, value in changed.items():
            getattr(layer, name).flatten()[1] = value
    return layer


def slopes(count: int, value: float) -> nn.PReLU:
    return nn.PReLU(count, init=value)


def slopes_of_which_one_is_not_1() -> nn.PReLU:
    layer = slopes(4, 1.0)
    layer.weight.data[2] = 0.5
    return layer


def linear(layer: nn.Module) -> Graph:
    model = Forward(lambda m, x: m.b(m.site(m.a(x))), a=nn.Linear(3, 4), site=layer, b=nn.Linear(4, 2)).double()
    return gg.trace(model, torch.randn(2, 3).double())


def maps(layer: nn.Module) -> Graph:
    model = Forward(lambda m, x: m.b(m.site(m.a(x))), a=nn.Conv2d(3, 4, 1), site=layer, b=nn.Conv2d(4, 2, 1)).double()
    return gg.trace(model, torch.randn(2, 3, 5, 4).double())


IDENTITIES = [
    linear(nn.Identity()), linear(nn.Dropout(0.0)), linear(slopes(1, 1.0)), linear(slopes(4, 1.0)),
    linear(square(nn.Linear(4, 4))), linear(square(nn.Linear(4, 4, bias=False))),
    maps(square(nn.Conv2d(4, 4, 3, padding=1))), maps(square(nn.Conv2d(4, 4, (1, 5), padding="same"))),
    maps(nn.Dropout2d(0.0)),
]  # fmt: skip
OTHERS = [
    linear(nn.Dropout(0.1)), linear(slopes(1, 0.999)), linear(nn.ReLU()), linear(nn.Linear(4, 4)),
    linear(square(nn.Linear(4, 4), weight=1e-30)), linear(square(nn.Linear(4, 4), bias=1e-30)),
    linear(slopes_of_which_one_is_not_1()), maps(square(nn.Conv2d(4, 4, 3, padding=1), weight=1e-30)),
    maps(square(nn.Conv2d(4, 4, 3, padding=1, stride=2))), maps(square(nn.Conv2d(4, 4, 2, padding="same"))),
]  # fmt: skip


@pytest.mark.parametrize("graph", IDENTITIES, ids=lambda g: repr(g.module.site))
def test_it_goes(graph: Graph) -> None:
    assert [str(m) for m in graph.mutations("drop-identity")] == ["drop-identity(site)"]
    child = grown(graph, "drop-identity(site)")
    assert_exact(graph, child, batches=(2, 3))
    assert "site" not in child.text()
    assert gg.verify(graph, child).preserved is True
    assert gg.apply(without_data(graph), "drop-identity(site)").text() == child.text()


@pytest.mark.parametrize("graph", OTHERS, ids=lambda g: repr(g.module.site))
def test_it_stays(graph: Graph) -> None:
    assert len(graph.mutations("drop-identity")) == 0
    with pytest.raises(gg.Declined, match="not known to pass its input on"):
        gg.apply(graph, "drop-identity(site)")


@pytest.mark.parametrize(
    ("first", "second", "goes"),
    [
        (nn.ReLU(), nn.ReLU(), True), (nn.ReLU(), nn.ReLU(inplace=True), True), (nn.ReLU6(), nn.ReLU6(), True),
        (nn.Hardtanh(-1, 2), nn.Hardtanh(-1, 2), True), (nn.Hardtanh(-1, 2), nn.Hardtanh(-1, 3), False),
        (nn.ReLU6(), nn.ReLU(), False), (nn.GELU(), nn.GELU(), False), (nn.Tanh(), nn.Tanh(), False),
    ],
)  # fmt: skip
def test_an_activation_behind_its_like(first: nn.Module, second: nn.Module, goes: bool) -> None:
    graph = linear(nn.Sequential(first, second))
    assert [str(m) for m in graph.mutations("drop-identity")] == ["drop-identity(site.1)"] * goes
    if goes:
        assert_exact(graph, grown(graph, "drop-identity(site.1)"))


@pytest.mark.parametrize("build", [linear, maps])
def test_what_deepen_put_in_goes_again(build: Any) -> None:
    graph = build(nn.GELU())
    child = gg.apply(graph, "deepen(site, kind=identity)")
    for text in [str(m) for m in child.mutations("drop-identity")][::-1]:
        child = grown(child, text)
    assert child.text() == graph.text()


def test_refused_where_there_are_two_inputs() -> None:
    graph = gg.trace(Forward(lambda m, x: m.a(x) + x, a=nn.Linear(3, 3)), torch.randn(2, 3))
    with pytest.raises(gg.Declined, match="not known to pass"):
        gg.apply(graph, "drop-identity(:add)")
    with pytest.raises(gg.Declined, match="`add` is no layer of one input"):
        gg.apply(without_data(graph), "drop-identity(:add)")
