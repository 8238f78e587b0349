"""Functions over a layer's own parameters become calls of the layer, where they compute what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.rewrite.small_models import Forward

ROWS = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
MAPS = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
Run = Callable[[Any, Any], Any]


def layers(run: Run, example: torch.Tensor, **members: Any) -> list[str]:
    """The layers that the graph calls; it must compute what the model does."""
    torch.manual_seed(0)
    model = Forward(run, **members)
    graph = gg.trace(model, example, way="fx")
    assert torch.equal(graph.module(example), model(example))
    return [str(node.target) for node in graph.module.graph.nodes if node.op == "call_module"]


def linear(m: Any, x: Any) -> Any:
    return F.linear(x, m.a.weight, m.a.bias)


def conv(m: Any, x: Any) -> Any:
    return F.conv2d(x, m.a.weight, m.a.bias, m.a.stride, m.a.padding, m.a.dilation, m.a.groups)


def layer_norm(m: Any, x: Any) -> Any:
    return F.layer_norm(x, (4,), m.a.weight, m.a.bias, m.a.eps)


@pytest.mark.parametrize(
    ("run", "example", "layer"),
    [
        (linear, ROWS, nn.Linear(4, 3)),
        (lambda m, x: F.linear(input=x, weight=m.a.weight), ROWS, nn.Linear(4, 3, bias=False)),
        (conv, MAPS, nn.Conv2d(4, 6, 3, 2, 1, groups=2)),
        (lambda m, x: F.conv2d(x, m.a.weight, stride=2, padding=(1, 1)), MAPS, nn.Conv2d(4, 6, 3, 2, 1, bias=False)),
        (layer_norm, ROWS, nn.LayerNorm(4, eps=1e-3)),
    ],
)  # fmt: skip
def test_the_layer_is_called(run: Run, example: torch.Tensor, layer: nn.Module) -> None:
    assert layers(run, example, a=layer) == ["a"]


class Shifted(nn.Linear):
    """A linear layer that does more."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 1


def hooked() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


@pytest.mark.parametrize(
    ("run", "example", "members"),
    [
        (lambda m, x: F.linear(x, m.a.weight), ROWS, {"a": nn.Linear(4, 3)}),
        (lambda m, x: F.linear(x, m.a.weight, m.b.bias), ROWS, {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}),
        (lambda m, x: F.linear(x, m.a.weight * 2, m.a.bias), ROWS, {"a": nn.Linear(4, 3)}),
        (lambda m, x: F.linear(x, m.a.weight), ROWS, {"a": nn.Embedding(3, 4)}),
        (linear, ROWS, {"a": Shifted(4, 3)}),
        (linear, ROWS, {"a": hooked()}),
        (lambda m, x: F.conv2d(x, m.a.weight, m.a.bias), MAPS, {"a": nn.Conv2d(4, 6, 3, padding=1)}),
        (lambda m, x: F.conv2d(x, m.a.weight, m.a.bias, 1, 1), MAPS,
         {"a": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular")}),
        (lambda m, x: F.layer_norm(x, (4,), m.a.weight, m.a.bias, 0.1), ROWS, {"a": nn.LayerNorm(4)}),
    ],
)  # fmt: skip
def test_what_computes_something_else_stays_a_function(run: Run, example: torch.Tensor, members: Any) -> None:
    assert layers(run, example, **members) == []


def test_its_names_and_modes_are_those_of_the_layer() -> None:
    model = Forward(lambda m, x: m.last(linear(m, x).relu()), a=nn.Linear(4, 3), last=nn.Linear(3, 2))
    graph = gg.trace(model, ROWS)
    grown = gg.apply(graph, "widen(a, extra=2)")
    assert grown.module.get_submodule("a").out_features == 5
    assert torch.allclose(grown.module(ROWS), model(ROWS))
    assert gg.apply(graph, "add-branch(a, kind=mlp)").parameter_count > graph.parameter_count
