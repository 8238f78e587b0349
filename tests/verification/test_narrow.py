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
