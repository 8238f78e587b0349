"""In-place operators: the graph computes the same, and its edges show who reads what was written."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg


class Statement(nn.Module):
    """The result of an in-place operator is dropped, and the tensor is read on."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.last = nn.LayerNorm(6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(x))
        hidden.add_(1.0)  # new units were zero before, and are not now
        F.relu(hidden, inplace=True)
        hidden += 0.5
        result: torch.Tensor = self.last(hidden)
        return result


def test_a_dropped_result_is_still_written() -> None:
    model, x = Statement(), torch.randn(3, 5)
    graph = gg.trace(model, x)
    assert torch.equal(graph.module(x), model(x))
    for mutation in graph.mutations():
        assert gg.verify(graph, gg.apply(graph, mutation)).preserved, mutation
    assert "widen(first, extra=3)" in map(str, graph.mutations())


class ThroughAView(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        flat = x.view(-1)
        x.add_(1)
        return flat.sum() + x.sum()


def test_a_view_of_an_overwritten_tensor_is_refused() -> None:
    with pytest.raises(gg.CaptureError, match=r"in place.*through the view"):
        gg.trace(ThroughAView(), torch.randn(2, 3))
