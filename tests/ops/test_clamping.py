"""Limits that are infinite: those that are off, as Gemma 4's are until a checkpoint sets them, and those that move."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg


class Clipped(nn.Module):
    """A gate over two maps, one of them between limits."""

    def __init__(self, low: float, high: float, run: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self.run, self.gate, self.up, self.down = run, nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(torch.sigmoid(self.gate(x)) * self.run(self.up(x), self.low, self.high))
        return result


INF = float("inf")


@pytest.mark.parametrize(
    ("low", "high", "run"),
    [
        (-INF, INF, torch.clamp),
        (-INF, INF, lambda x, low, high: x.clamp(max=high, min=low)),
        (-0.5, INF, torch.clamp),
        (-INF, INF, lambda x, low, high: x.clamp_min(low).clamp_max(high)),
        (0.0, 0.0, lambda x, low, high: x.clamp(-INF, INF)),
    ],
)
def test_limits_that_are_off_leave_nothing_infinite(low: float, high: float, run: Callable[..., Any]) -> None:
    model = Clipped(low, high, run)
    grown = gg.apply(gg.trace(model, torch.randn(3, 4)), "widen(gate, extra=3)")
    x = torch.randn(5, 4, dtype=torch.float64)
    mine, theirs = (copy.deepcopy(module).double()(x) for module in (model, grown.module))
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("low", "high", "run"),
    [
        (INF, INF, torch.clamp),
        (-INF, -INF, lambda x, low, high: torch.clamp(x, max=high)),
        (-INF, -INF, lambda x, low, high: x.clamp_max(high)),
        (0.0, 0.0, lambda x, low, high: x.clamp_min(INF)),
        (-INF, INF, lambda x, low, high: torch.clamp(x, low * 1.0, high)),  # which infinity is computed
        (-INF, INF, lambda x, low, high: torch.clamp(x + low, low, high)),
    ],
)
def test_limits_that_move_to_infinity_are_seen(low: float, high: float, run: Callable[..., Any]) -> None:
    graph = gg.trace(Clipped(low, high, run), torch.randn(3, 4))
    with pytest.raises(gg.Declined, match="may be infinite"):
        gg.apply(graph, "widen(gate, extra=3)")


def test_limits_that_are_sizes_make_no_constant() -> None:
    """What the length of an input limits is not the same in every call."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.first, self.last = nn.Parameter(torch.rand(6) + 1), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.first(x) / self.scale.clamp(max=x.shape[0] - 3))
            return result

    with pytest.raises(gg.Declined, match="may not be finite on new units"):
        gg.apply(gg.trace(Model(), torch.randn(5, 4)), "widen(first, extra=3)")
