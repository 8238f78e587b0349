"""What is looked through for its values does not grow along those axes; all else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.preserved import assert_preserved


class Net(nn.Module):
    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.after = nn.Linear(3, 6), nn.Linear(6, 2), after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.after(self.first(x).tanh()))


FROZEN: list[tuple[Callable[[torch.Tensor], torch.Tensor], str]] = [
    (lambda h: h * torch.nonzero(h > 0)[:, 1].sum(), "looked through for what is not zero"),
    (lambda h: h * (h > 0).nonzero(as_tuple=True)[0].sum(), "looked through for what is not zero"),
    (lambda h: h * h[0].cumsum(0)[-1].item(), "an axis whose order counts"),
]


@pytest.mark.parametrize(("after", "reason"), FROZEN)
def test_what_is_looked_through_does_not_grow(after: Callable[[torch.Tensor], torch.Tensor], reason: str) -> None:
    graph = gg.trace(Net(after).double(), torch.randn(4, 3).double(), way="fx")
    assert reason in str(graph.group("first").frozen)


def test_a_number_that_copies_do_not_change_lets_units_be_split() -> None:
    graph = gg.trace(Net(lambda h: h.clamp(max=h.max().item())).double(), torch.randn(4, 3).double(), way="fx")
    assert [str(mutation) for mutation in graph.mutations("split")] == ["split(first)"]
    assert_preserved(graph, gg.apply(graph, "split(first)"))


class Bounded(nn.Module):
    """Bounded from below, and divided by its length, which new units leave as it is where they are zero."""

    def __init__(self, bound: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.bound = nn.Linear(3, 6), nn.Linear(6, 2), bound

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bounded = self.first(x).tanh().clamp(min=self.bound(x))
        return self.last(bounded / bounded.norm(dim=-1, keepdim=True))


def test_a_number_is_another_in_each_call() -> None:
    """A bound that is negative on the example: zeros stay zero there, and not where it is positive."""
    inputs = torch.randn(4, 3).double()
    fixed = gg.trace(Bounded(lambda x: -10.0).double(), inputs, way="fx")
    assert [str(mutation) for mutation in fixed.mutations("widen")] == ["widen(first, extra=3)"]
    asked = gg.trace(Bounded(lambda x: x.mean().item() - 10).double(), inputs, way="fx")
    assert not list(asked.mutations("widen"))
