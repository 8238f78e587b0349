"""Axes of a few positions that a model takes apart by number, and then sums over, moves or mixes all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg

X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MIXING: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "by a matrix": lambda m, h: m.mix @ h + h,
    "by a matrix alone": lambda m, h: m.mix @ h,
    "by einsum": lambda m, h: h + torch.einsum("ij,bjd->bid", m.mix, h),
    "by a linear map": lambda m, h: nn.functional.linear(h.transpose(1, 2), m.mix).transpose(1, 2) + h,
    "by tensordot": lambda m, h: torch.tensordot(h, m.mix, ([1], [0])).transpose(1, 2) + h,
    "turned round": lambda m, h: h.flip(1),
    "summed up": lambda m, h: h.cumsum(1),
    "summed up from behind": lambda m, h: h.flip(1).cumsum(1),
    "rolled": lambda m, h: h.roll(1, 1),
    "pairs": lambda m, h: (h.unsqueeze(1) + h.unsqueeze(2)).mean(2) + h,
    "differences of pairs": lambda m, h: (2 * h.unsqueeze(1) - h.unsqueeze(2))[:, 0],
    "repeated": lambda m, h: h.repeat(1, 2, 1)[:, 1:3],
    "from the first": lambda m, h: h - h[:, :1],
    "a convolution": lambda m, h: h + m.convolution(h.transpose(1, 2)).transpose(1, 2),
}


class Streams(nn.Module):
    """Two streams in one axis: a layer norm reads the first of what is made of them, and a ReLU the second."""

    def __init__(self, make: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.mix, self.norm = nn.Linear(4, 12), nn.Parameter(torch.randn(2, 2)), nn.LayerNorm(6)
        self.convolution = nn.Conv1d(6, 6, 3, padding=1)
        self.left, self.right, self.make = nn.Linear(6, 3), nn.Linear(6, 3, bias=False), make
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x).view(-1, 2, 6)
        apart = h[:, 0]  # which tells the positions apart
        y = self.make(self, h)
        result: torch.Tensor = self.left(self.norm(y[:, 0])) + self.right(torch.relu(y[:, 1])) + self.right(apart)
        return result


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("mutation", ["widen(first:1, extra=2)", "split(first:1)"])
def test_positions_that_come_together_are_filled_alike(name: str, mutation: str) -> None:
    """The mean of one stream and of a free one is no mean: outputs moved by as much as they are large."""
    model = Streams(MIXING[name]).double()
    child = gg.apply(gg.trace(model, X), mutation)
    assert torch.allclose(child.module(X), model(X), rtol=1e-12, atol=1e-12)


def test_positions_that_stay_apart_are_filled_apart() -> None:
    """The first stream holds means, for its norm; the second is free."""
    child = gg.apply(gg.trace(Streams(lambda m, h: 2 * h).double(), X), "widen(first:1, extra=2)")
    rows = child.module.get_parameter("first.weight").view(2, 8, 4)
    assert torch.allclose(rows[0, 6:], rows[0, :6].mean(0).expand(2, 4))
    assert not torch.allclose(rows[1, 6:], rows[1, :6].mean(0).expand(2, 4))


def test_what_is_mixed_holds_means_in_both_streams() -> None:
    child = gg.apply(gg.trace(Streams(MIXING["by einsum"]).double(), X), "widen(first:1, extra=2)")
    rows = child.module.get_parameter("first.weight").view(2, 8, 4)
    assert torch.allclose(rows[:, 6:], rows[:, :6].mean(1, keepdim=True).expand(2, 2, 4))


class Scores(nn.Module):
    """Scores among positions. A norm needs zeros in the first of the queries, another in the second of the keys."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.last = nn.Linear(4, 12), nn.Linear(4, 12), nn.Linear(4, 12), nn.Linear(6, 3)
        self.norm_q, self.norm_k, self.scored = nn.RMSNorm(6, 1e-5), nn.RMSNorm(6, 1e-5), nn.Linear(2, 3)
        self.last_q, self.last_k = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).view(-1, 2, 6) for layer in (self.q, self.k, self.v))
        y = (q + v)[:, 0] + (k + v)[:, 0]  # the same positions in all three
        y = self.last(y) + self.last_q(self.norm_q(q[:, 0])) + self.last_k(self.norm_k(k[:, 1]))
        result: torch.Tensor = y + self.scored(q @ k.transpose(1, 2)).sum(1)
        return result


def test_every_query_meets_every_key() -> None:
    """Positions of scores lie along two axes: those of one kind are no reason to think that two meet."""
    graph = gg.trace(Scores().double(), X)
    with pytest.raises(gg.Declined, match="at `matmul`"):  # the second query and the first key are both free
        gg.apply(graph, "widen(q:1, extra=2)")
