"""Writes past the gradient: refused where a graph of values would lose it, and harmless elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


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


def _copied(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    m.kept.data.copy_(mean)
    return h


def _averaged(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    m.kept.data.mul_(0.9).add_(mean, alpha=0.1)
    return h


def _assigned_by_item(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    m.kept.data[:] = mean
    return h


def _augmented(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    m.kept.data += mean
    m.count.data += 1
    return h


def _under_no_grad(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    with torch.no_grad():
        m.kept.copy_(mean)
    return h


def _detached_and_averaged(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    m.kept.detach().mul_(0.9).add_(mean, alpha=0.1)
    return h


def _read_behind(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    m.kept.data.mul_(0.9).add_(mean, alpha=0.1)
    return h * m.kept


def _copied_and_read(m: Any, h: torch.Tensor, mean: torch.Tensor) -> Any:
    m.kept.data.copy_(mean)
    h = h * m.kept.cos()
    m.kept.data.add_(1)
    return h


@pytest.mark.parametrize(
    "keep",
    [_copied, _averaged, _assigned_by_item, _augmented, _under_no_grad, _detached_and_averaged, _read_behind,
     _copied_and_read],
    ids=lambda keep: keep.__name__.strip("_"),
)  # fmt: skip
def test_a_buffer_keeps_what_has_a_gradient_as_in_the_model(keep: Callable[..., Any]) -> None:
    """Of three calls: answers, buffers, gradients, or that torch refuses them; the buffer never gets a gradient."""

    def run(m: Any, x: torch.Tensor) -> Any:
        h = m.first(x)
        y = h * m.kept
        return m.last(keep(m, y, h.mean(0)) if m.training else y)

    torch.manual_seed(0)
    model = Forward(run, first=nn.Linear(4, 4), last=nn.Linear(4, 2))
    model.register_buffer("kept", torch.ones(4))
    model.register_buffer("count", torch.zeros((), dtype=torch.long))
    model.double()
    x = torch.randn(3, 4, dtype=torch.float64)
    graph = gg.trace(model, x, way="fx")
    assert graph.modes == {"eval", "train"}
    wanted, refused = _three_steps(copy.deepcopy(model), x)
    found = _three_steps(copy.deepcopy(graph.module), x)
    for name, values in found[0].items():  # a graph holds no counter that nothing reads
        torch.testing.assert_close(values, wanted[name], rtol=1e-12, atol=1e-13)
    assert found[1] == refused
    for mutation in graph.mutations("widen"):
        (grown, _), losses = _three_steps(copy.deepcopy(gg.apply(graph, mutation).module), x), wanted["loss"]
        torch.testing.assert_close(grown["loss"], losses, rtol=1e-12, atol=1e-13)


def _three_steps(module: nn.Module, x: torch.Tensor) -> tuple[dict[str, list[Any]], list[str]]:
    found: dict[str, list[Any]] = {"loss": []}
    errors = []
    for _ in range(3):
        module.train().zero_grad()
        loss = module(x).square().sum()
        found["loss"].append(loss.detach())
        try:
            loss.backward()
        except RuntimeError as error:
            errors.append(str(error)[:60])
        for name, parameter in module.named_parameters():
            found.setdefault(name, []).append(0 if parameter.grad is None else parameter.grad.clone())
        for name, buffer in module.named_buffers():
            found.setdefault(name, []).append(buffer.clone())
            assert not buffer.requires_grad
    return found, errors
