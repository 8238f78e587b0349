"""Tensors that a model makes from sizes: of any batch, in whatever form the sizes are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg

Make = Callable[[Any, Any, Any], Any]
FORMS: dict[str, Make] = {
    "one by one": lambda m, h, n: torch.zeros(n, 4),
    "a tuple": lambda m, h, n: torch.zeros((n, 4)),
    "a list": lambda m, h, n: torch.ones([n, 1], dtype=h.dtype),
    "by name": lambda m, h, n: torch.ones(size=(n, 4)),
    "full": lambda m, h, n: torch.full((n, 4), 0.5),
    "full of a shape": lambda m, h, n: torch.full(h.shape, 0.5),
    "new_full": lambda m, h, n: h.new_full((n, 4), 0.5),
    "eye": lambda m, h, n: torch.eye(n).sum(1, keepdim=True),
    "ranks added": lambda m, h, n: torch.zeros(h.shape[:1] + (4,)),  # noqa: RUF005  # the form under test
    "expand": lambda m, h, n: m.bare.expand((n, 4)),
    "broadcast": lambda m, h, n: torch.broadcast_to(m.bare, (n, 4)),
    "broadcast, a method": lambda m, h, n: m.bare.broadcast_to((n, 4)),
    "repeat": lambda m, h, n: m.bare.repeat((n, 1)),
    "tile": lambda m, h, n: torch.tile(m.bare, (n, 1)),
    "random": lambda m, h, n: 0 * torch.rand((n, 4)),
    "whole numbers": lambda m, h, n: 1.0 * torch.randint(3, 4, (n, 4)),
    "normal": lambda m, h, n: 0 * torch.normal(0.0, 1.0, size=(n, 4)),
    "a kernel for each row": lambda m, h, n: F.conv1d(
        h.reshape(1, -1, 1), m.bare.reshape(4, 1, 1).repeat(n, 1, 1), groups=4 * n
    ).view(n, 4),
    "transformed": lambda m, h, n: torch.fft.irfft(torch.fft.rfft(h, n=2 * n, dim=0), n=2 * n, dim=0)[:n],
    "transformed, by position": lambda m, h, n: torch.fft.fft2(h, (n + 1, 4)).real[:n],
    "rolled": lambda m, h, n: torch.roll(h, n // 2, 0),
    "a part": lambda m, h, n: torch.narrow(h, 0, n - 1, 1) + torch.select(h, 0, n - 2),
    "of a shape": lambda m, h, n: torch.reshape(h, (n, 4)),
    "above": lambda m, h, n: torch.triu(h, n - 2) + torch.tril(h, 1 - n),
    "the largest": lambda m, h, n: torch.topk(h, n // 2 + 1, 0)[0][:1] + torch.kthvalue(h, n // 2 + 1, 0)[0],
    "pooled": lambda m, h, n: F.adaptive_avg_pool1d(h.t(), n - 1).mean(1),
    "averaged over all": lambda m, h, n: F.avg_pool1d(h.t(), n).squeeze(1),
    "averaged over all, in two axes": lambda m, h, n: F.avg_pool2d(h.t().reshape(4, n, 1), [n, 1]).flatten(),
    "counts": lambda m, h, n: 1.0 * torch.bincount(torch.arange(n) // 2, minlength=n).unsqueeze(1),
    "a mask": lambda m, h, n: torch.tril(torch.ones((n, n))).mean(1, keepdim=True),
}


class Net(nn.Module):
    def __init__(self, make: Make) -> None:
        super().__init__()
        self.first, self.last, self.make = nn.Linear(3, 4), nn.Linear(4, 2), make
        self.bare = nn.Parameter(torch.randn(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        result: torch.Tensor = self.last(hidden + self.make(self, hidden, x.shape[0]))
        return result


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_another_size(form: str) -> None:
    torch.manual_seed(0)
    model = Net(FORMS[form]).eval()
    graph = gg.trace(model, torch.randn(2, 3))
    other = torch.randn(5, 3)
    assert torch.equal(graph.module(other), model(other))
    for mutation in graph.mutations("widen"):
        assert torch.allclose(gg.apply(graph, mutation).module(other), model(other), atol=1e-5)
