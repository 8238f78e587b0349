"""Moments of the units' gradients, against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import SignalError
from graphgrow.signals.gradients import GradientSignal
from graphgrow.signals.watch import Watch


def test_mean_and_variance_over_batches_and_positions() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 3, 2)).double()
    graph = gg.trace(net, torch.randn(2, 2, 8, dtype=torch.float64))
    signal = GradientSignal(graph, samples=10_000)
    rows = []
    with Watch(graph.module, [signal]):
        for scale in (1.0, 100.0):
            batch = torch.randn(6, 2, 8, dtype=torch.float64)
            (graph.module(batch).square().sum() * scale).backward()
            hidden = torch.tanh(net[0](batch)).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(net[2](hidden).square().sum() * scale, hidden)
            rows.append(gradient.movedim(1, -1).reshape(-1, 4))
    found = signal.results()["0"]
    whole = torch.cat(rows)
    assert found.samples == len(whole)
    assert torch.allclose(found.mean, whole.mean(0))
    assert torch.allclose(found.variance, whole.var(0, unbiased=False))


def test_without_a_backward_pass_there_is_nothing() -> None:
    graph = gg.trace("graphgrow:mlp")
    signal = GradientSignal(graph)
    args, kwargs = graph.inputs.sample()
    with Watch(graph.module, [signal]), torch.no_grad():
        graph.module(*args, **kwargs)
    with pytest.raises(SignalError, match=r"loss\.backward"):
        signal.results()
