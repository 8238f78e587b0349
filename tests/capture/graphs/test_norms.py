"""Spelled-out RMS norms become layers that compute the same, to the bit, in every dtype; what is no such norm stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import RootMeanSquareNorm


class Norm(nn.Module):
    """A norm by a formula of itself and its input."""

    def __init__(self, formula: Callable[[Any, torch.Tensor], torch.Tensor], width: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)
        self.eps = 1e-3
        self._formula = formula

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._formula(self, x)


def llama(m: Any, x: torch.Tensor) -> torch.Tensor:
    dtype = x.dtype
    x = x.to(torch.float32)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps)
    result: torch.Tensor = m.weight * x.to(dtype)
    return result


def olmo(m: Any, x: torch.Tensor) -> torch.Tensor:
    dtype = x.dtype
    x = x.to(torch.float32)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps)
    return (m.weight * x).to(dtype)


def gemma(m: Any, x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    out = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + m.eps)
    return (out * (1.0 + m.weight.float())).type_as(x)


def t5(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + m.eps)
    if m.weight.dtype in (torch.float16, torch.bfloat16):
        x = x.to(m.weight.dtype)
    result: torch.Tensor = m.weight * x
    return result


def by_power(m: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = x * torch.pow(torch.mean(x * x, dim=-1, keepdim=True) + m.eps, -0.5) * m.weight
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("formula", [llama, olmo, gemma, t5, by_power])
def test_norms_of_language_models(formula: Callable[..., torch.Tensor], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Norm(formula), nn.Linear(6, 3)).to(dtype)
    graph = gg.trace(model, torch.randn(2, 5, 4, dtype=dtype), way="dynamo")
    layer = graph.module.get_submodule("1")
    assert isinstance(layer, RootMeanSquareNorm)
    assert layer.weight is model[1].weight
    assert layer.offset == (1.0 if formula is gemma else 0.0)
    x = torch.randn(3, 7, 6, dtype=dtype)
    if formula is by_power:  # a power rounds otherwise than a reciprocal root
        torch.testing.assert_close(layer(x), model[1](x))
    else:
        assert torch.equal(layer(x), model[1](x))
    if dtype is torch.float32:
        grown = gg.apply(graph, "widen(0, extra=2)")
        assert gg.verify(graph, grown).preserved
        assert grown.module.get_parameter("1.weight").shape == (8,)


def without_eps(m: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = m.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))
    return result


def another_power(m: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = m.weight * (x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + m.eps))
    return result


def another_axis(m: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = m.weight * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + m.eps))
    return result


def of_something_else(m: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = m.weight * ((x + 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps))
    return result


def root_read_twice(m: Any, x: torch.Tensor) -> torch.Tensor:
    root = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps)
    result: torch.Tensor = m.weight * (x * root) + root
    return result


@pytest.mark.parametrize("formula", [without_eps, another_power, another_axis, of_something_else, root_read_twice])
def test_what_is_no_such_norm_stays_as_it_is(formula: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Norm(formula), nn.Linear(6, 3))
    graph = gg.trace(model, torch.randn(2, 5, 4), way="dynamo")
    assert not any(isinstance(part, RootMeanSquareNorm) for part in graph.module.modules())


def test_one_norm_called_twice_is_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 6), Norm(llama)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.norm(self.linear(self.norm(x)))
            return result

    torch.manual_seed(0)
    graph = gg.trace(Twice(), torch.randn(2, 6), way="dynamo")
    assert [str(n.target) for n in graph.module.graph.nodes if n.op == "call_module"] == ["norm", "linear", "norm"]
