"""Example values without data."""

from __future__ import annotations

import torch
from torch import nn

import graphgrow as gg
from graphgrow.ir.meta import to_meta


def test_tensors_go_to_meta_and_sizes_stay_sizes() -> None:
    x = torch.randn(2, 3)
    found = to_meta({"a": [x, x.shape], "b": 3})
    assert found["a"][0].is_meta
    assert type(found["a"][1]) is torch.Size
    assert found["b"] == 3


class Counted(nn.Module):
    """Divides by the number of elements, read off the size as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(x)) / x.shape.numel()
        return result


def test_methods_of_sizes_run() -> None:
    graph = gg.trace(Counted(), torch.randn(2, 3))
    x = torch.randn(5, 3)
    grown = gg.apply(graph, "widen(first, extra=2)")
    assert torch.allclose(grown.module(x), graph.module(x), atol=1e-6)
