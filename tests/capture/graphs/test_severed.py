"""Writes past the gradient: refused where a graph of values would lose it, and harmless elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.preserved import assert_preserved


class _Model(nn.Module):
    def __init__(self, between: Callable[[Any], Any]) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(3, 4), nn.Linear(4, 2), between
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.between(self.first(x)))


def _without_grad(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        x.clamp_(0.1)
    return x


def _detached(x: torch.Tensor) -> torch.Tensor:
    x.detach().clamp_(0.1)
    return x


def _data(x: torch.Tensor) -> torch.Tensor:
    x.data.mul_(2).clamp_(0.1)
    return x


def _view(x: torch.Tensor) -> torch.Tensor:
    y = x.unsqueeze(0)
    x.detach()[:, 0].fill_(1)
    return y.squeeze(0)


def _filled(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(x.shape[0], 4)
    y[:, 1:] = x[:, 1:]
    with torch.no_grad():
        y[:, 0] = x[:, 0]
    return y


def _filled_first(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(x)
    with torch.no_grad():
        y[:, 0] = x[:, 0]
    return y.clone() + x.clone()


def _made_apart(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x.abs()
        y.add_(1).div_(y.sum(-1, keepdim=True))
    return x * y


def _apart(x: torch.Tensor) -> torch.Tensor:
    y = x.detach()
    y.clamp_(0.1)
    return y.exp() + x.shape[0]


def _read(x: torch.Tensor) -> torch.Tensor:
    return x + x.data.sum(-1, keepdim=True)


@pytest.mark.parametrize("between", [_without_grad, _detached, _data, _view, _filled])
def test_a_gradient_that_a_graph_would_lose_is_refused(between: Callable[[Any], Any]) -> None:
    with pytest.raises(gg.CaptureError, match="overwrites a tensor past its gradient"):
        gg.trace(_Model(between), torch.randn(2, 3), way="fx")


@pytest.mark.parametrize("between", [_without_grad, _detached, _filled])
def test_dynamo_does_not_step_in(between: Callable[[Any], Any]) -> None:
    with pytest.raises(gg.CaptureError, match="overwrites a tensor past its gradient"):
        gg.trace(_Model(between), torch.randn(2, 3), way="dynamo")


@pytest.mark.parametrize("way", ["fx", "dynamo"])
@pytest.mark.parametrize("between", [_apart, _read, _filled_first, _made_apart])
def test_gradients_are_the_models_where_none_is_lost(between: Callable[[Any], Any], way: str) -> None:
    model, x = _Model(between), torch.randn(2, 3)
    graph = gg.trace(model, x, way=way)
    found = []
    for module in (model, graph.module):
        model.zero_grad()
        module(x).square().sum().backward()
        found.append({name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()})
    assert str(found[0]) == str(found[1])
    assert (found[0]["first.weight"] is None) == (between is _apart)


def test_sizes_read_off_data_leave_the_channels_free() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.first(x)
            batch, channels, height, width = x.data.size()
            x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
            return self.last(x.view(batch, -1, height, width))

    graph = gg.trace(Shuffled(), torch.randn(2, 3, 4, 5))
    for mutation in ("widen(first:1, extra=1)", "split(first:1)", "split(first:0)"):
        assert_preserved(graph, gg.apply(graph, mutation), batch_sizes=(None, 3))
