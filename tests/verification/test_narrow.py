"""The own dtype: how far a child's rounding may be from its parent's where the network amplifies it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.verification.numbers import Change, one_ulp
from graphgrow.verification.outputs import outputs_agree


def test_noise_is_drawn_anew_until_it_explains_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention of a Visformer tips over in one draw of three: one draw alone called an exact split wrong."""
    drawn: list[int] = []

    def quiet_twice(seed: int) -> Change:
        drawn.append(seed)
        return one_ulp(seed) if len(drawn) > 2 else lambda _, new: None

    def agree_when_noisy(*arguments: Any) -> bool:
        return len(drawn) > 2 and outputs_agree(*arguments)

    torch.manual_seed(0)
    graph = gg.trace(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(4, 3))
    child = gg.apply(graph, "split(0)")
    monkeypatch.setattr("graphgrow.verification.narrow.one_ulp", quiet_twice)
    monkeypatch.setattr("graphgrow.verification.narrow.outputs_agree", agree_when_noisy)
    assert gg.verify(graph, child).preserved
    assert len(drawn) == 3
    assert len(set(drawn)) == 3, "each draw is another"


def test_a_mistake_is_not_taken_for_noise() -> None:
    torch.manual_seed(0)
    graph = gg.trace(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(4, 3))
    child = gg.apply(graph, "split(0)")
    with torch.no_grad():
        child.module.get_parameter("2.weight")[0, 0] *= 1 + 1e-4
    verdict = gg.verify(graph, child)
    assert not verdict.preserved
    assert any("float32" in check.what and not check.passed for check in verdict.checks)


class Shuffled(nn.Module):
    """Tokens in an order that is drawn in each call, as masked autoencoders draw what they see."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = torch.rand(x.shape[0], x.shape[1], device=x.device).argsort(1)
        x = torch.gather(x, 1, order.unsqueeze(-1).expand(-1, -1, 3))
        result: torch.Tensor = self.last(torch.tanh(self.first(x)))
        return result


def test_random_numbers_are_those_of_the_own_dtype_in_float64_too() -> None:
    """In float64 a generator gives others: each order was compared with another, which no mistake made worse."""
    torch.manual_seed(0)
    graph = gg.trace(Shuffled(), torch.randn(2, 6, 3))
    child = gg.apply(graph, "split(first)")
    (check,) = (check for check in gg.verify(graph, child).checks if "float32" in check.what)
    assert check.passed
    assert check.bound < 1e-5
    with torch.no_grad():
        child.module.get_parameter("last.weight")[0, 0] *= 1 + 1e-4
    assert any("float32" in check.what and not check.passed for check in gg.verify(graph, child).checks)
