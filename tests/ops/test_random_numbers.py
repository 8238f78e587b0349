"""Random numbers: what they are drawn for stays as it is, and what lies before and behind them grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares


def _drawn(target: Any, *arguments: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 3), draw(2, 3))
        return Probe(lambda m: op(target, torch.sigmoid(m.x), *arguments), {"x": x})

    return build


CASES = [
    *(Case((target,), _drawn(target), {})
      for target in (F.gumbel_softmax, torch.rand_like, torch.randn_like, torch.bernoulli, "bernoulli", torch.poisson)),
    Case((torch.randint_like,), _drawn(torch.randint_like, 5), {}),
]  # fmt: skip


test_square = squares(CASES, 1)


class Categorical(nn.Module):
    """A choice among the rows of a table, drawn anew in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.logits, self.last = nn.Linear(6, 12), nn.Linear(12, 5), nn.Linear(8, 3)
        self.table = nn.Parameter(torch.randn(5, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = F.gumbel_softmax(self.logits(torch.relu(self.first(x))), tau=0.7)
        result: torch.Tensor = self.last(torch.relu(chosen @ self.table))
        return result


@pytest.mark.parametrize("text", ["split(first)", "widen(first, extra=3)", "widen(table, extra=2)"])
def test_parent_and_child_are_compared_with_the_same_numbers(text: str) -> None:
    """They were drawn anew for each, and an exact growth was called wrong."""
    torch.manual_seed(0)
    graph = gg.trace(Categorical(), torch.randn(4, 6))
    assert "random numbers are drawn for each of its units (at `gumbel_softmax`)" in graph.explain()
    verdict = gg.verify(graph, gg.apply(graph, text))
    assert verdict.preserved, verdict
