"""Weights and products that have a growing axis twice: symmetric matrices, matrices of low rank, outer products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg

X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Square(nn.Module):
    """A layer, what a function makes of its units with square weights, and a layer."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.run = nn.Linear(3, 5), nn.Linear(5, 2), run
        self.w, self.u, self.v = (nn.Parameter(torch.randn(5, size) / 3) for size in (5, 3, 3))
        self.stack = nn.Parameter(torch.randn(2, 5, 5) / 3)
        self.t, self.layer = nn.Parameter(torch.rand(5)), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.run(self, torch.tanh(self.first(x))))
        return result


def _oscillator(m: Any, h: torch.Tensor) -> torch.Tensor:
    skew = m.w - m.w.T
    for _ in range(2):
        h = h + 0.1 * torch.tanh(h @ skew.T + m.t)
    return h


WIDENED: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "symmetric": lambda m, h: F.linear(h, m.w + m.w.t()),
    "half of it": lambda m, h: h @ (0.5 * (m.w + m.w.transpose(0, 1))),
    "skew": lambda m, h: h + h @ (m.w - m.w.T),
    "an oscillator": _oscillator,
    "low rank": lambda m, h: h @ (m.u @ m.u.t()),
    "low rank and skew": lambda m, h: h @ ((uv := m.u @ m.v.t()) - uv.t()),
    "outer product": lambda m, h: h @ torch.outer(m.t, m.t),
    "scaled": lambda m, h: h @ ((m.w + m.w.T) * m.t),
    "squashed": lambda m, h: torch.relu(h @ torch.tanh(m.w + m.w.T)),
    "the larger": lambda m, h: h @ torch.where(m.w > m.w.T, m.w, m.w.T),
    "a layer both ways": lambda m, h: m.layer(h) + F.linear(h, m.layer.weight.t()),
    "stacked weights": lambda m, h: (g := h + torch.tanh(h @ m.stack[0])) + torch.tanh(g @ m.stack[1]),
    "pairs": lambda m, h: torch.einsum("bij,ij->bi", h.unsqueeze(1) * h.unsqueeze(2), m.w),
    "sums of rows": lambda m, h: h * (m.w + m.w.T).sum(1),
    "exponential": lambda m, h: h @ torch.exp(-((m.w + m.w.T) ** 2)),
}
SPLIT = ["symmetric", "half of it"]
DECLINED: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "a row beside": lambda m, h: h @ ((m.w + m.w.T) + m.t),
    "a norm of rows": lambda m, h: h @ F.layer_norm(m.w + m.w.T, (5,)),
    "directions of rows": lambda m, h: h @ F.normalize(m.w + m.w.T, dim=-1),
    "a mean of all": lambda m, h: h @ (s := m.w + m.w.T) * s.mean(),
    "sums of pairs": lambda m, h: (torch.relu(h.unsqueeze(1) + h.unsqueeze(2)) * m.w).sum(2),
    "joined": lambda m, h: h @ torch.cat([m.w, m.w.T], 1)[:, :5],
}


@pytest.mark.parametrize("name", WIDENED)
def test_both_axes_are_widened_alike(name: str) -> None:
    model = Square(WIDENED[name]).double()
    graph = gg.trace(model, X)
    child = gg.apply(graph, "widen(first, extra=2)")
    assert torch.allclose(child.module(X), model(X), rtol=1e-12, atol=1e-12)
    verdict = gg.verify(graph, child, modes=("eval", "gradients", "alive"))
    assert verdict.preserved, verdict


@pytest.mark.parametrize("name", SPLIT)
def test_shares_along_both_axes_add_up(name: str) -> None:
    model = Square(WIDENED[name]).double()
    child = gg.apply(gg.trace(model, X), "split(first, units=[1, 3])")
    assert torch.allclose(child.module(X), model(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", DECLINED)
@pytest.mark.parametrize("mutation", ["widen(first, extra=2)", "split(first)"])
def test_what_lies_along_one_of_them_alone_is_declined(name: str, mutation: str) -> None:
    graph = gg.trace(Square(DECLINED[name]).double(), X)
    with pytest.raises(gg.Declined, match="a tensor has this axis twice"):
        gg.apply(graph, mutation)


def test_copies_along_one_axis_and_shares_along_the_other_are_no_symmetric_matrix() -> None:
    graph = gg.trace(Square(WIDENED["a layer both ways"]).double(), X)
    with pytest.raises(gg.Declined, match="filled differently along each"):
        gg.apply(graph, "split(first)")
