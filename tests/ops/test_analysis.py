"""What holds for every operator: arguments that say nothing, and axes that hold nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.preserved import assert_preserved


class Between(nn.Module):
    """An operator between two linear maps."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last, self._run = nn.Linear(4, 6), nn.Linear(6, 2), run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self._run(self.first(x)))
        return result


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x * torch.mean(x, dim=1, out=None, keepdim=True),
        lambda x: torch.cat([x[:, :3], x[:, 3:]], 1, out=None),
        lambda x: torch.clamp(x, -1.0, 1.0, out=None),
    ],
)
def test_an_out_of_none_is_as_if_it_were_left_out(run: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph = gg.trace(Between(run).double(), torch.randn(3, 4).double())
    found = list(graph.mutations("widen"))
    assert found
    for mutation in found:
        assert_preserved(graph, gg.apply(graph, mutation))


class Thin(nn.Module):
    """A quarter of three channels is none, as in the positional bias of a narrow RGT."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.rows = nn.Linear(4, 3 // 4), nn.LayerNorm(3 // 4), nn.Linear(3 // 4, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.relu(self.rows(self.norm(self.body(x)))))
        return result


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_axis_without_units_does_not_grow() -> None:
    """Listing what could be split, merged or dropped was an IndexError."""
    graph = gg.trace(Thin().double(), torch.randn(3, 4).double())
    assert "an axis without units" in {group.frozen.text for group in graph.groups if group.frozen}
    found = list(graph.mutations())
    assert any("rows" in str(mutation) for mutation in found)
    assert not any(mutation.name in ("widen", "split") and "body" in str(mutation) for mutation in found)
    for mutation in found:
        assert_preserved(graph, gg.apply(graph, mutation))
