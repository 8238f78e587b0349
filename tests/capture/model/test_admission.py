"""Wrappings: unwrapped with a note, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (torch.compile, "compiled by torch.compile"),
        (nn.DataParallel, "wrapped in DataParallel"),
        (lambda model: torch.compile(nn.DataParallel(model)), "wrapped in DataParallel"),
    ],
)
def test_wrappings_are_taken_off_with_a_note(wrap: Callable[[nn.Module], nn.Module], note: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = gg.trace(wrap(model), X)
    assert note in graph.explain()
    assert graph.module.get_parameter("0.weight") is model[0].weight


def test_leaves_that_are_not_there_are_refused() -> None:
    with pytest.raises(gg.CaptureError, match="there is no submodule 'nothing' in Linear"):
        gg.trace(nn.Linear(3, 3), X, leaves=["nothing"])
    with pytest.raises(gg.CaptureError, match="wanted module classes and paths"):
        gg.trace(nn.Linear(3, 3), X, leaves=[3])  # type: ignore[list-item]


def test_what_leaves_share_with_their_inputs_is_known() -> None:
    """One that returns its input may return something else for other numbers, so that a write into it is refused."""

    class Leaf(nn.Module):
        def __init__(self, writes: bool) -> None:
            super().__init__()
            self.writes = writes

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.add_(1) if self.writes else x

    class Outer(nn.Module):
        def __init__(self, writes: bool) -> None:
            super().__init__()
            self.linear, self.leaf = nn.Linear(3, 3), Leaf(writes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.linear(x)
            y = self.leaf(h)
            y.mul_(2)
            return h + 1

    with pytest.raises(gg.CaptureError, match="the leaf `leaf` overwrites what it is given"):
        gg.trace(Outer(True), X, leaves=[Leaf])
    with pytest.raises(gg.CaptureError, match=r"test_admission.py:\d+ overwrites a tensor in place .* `leaf`"):
        gg.trace(Outer(False), X, leaves=[Leaf])


def test_leaves_are_not_told_of_as_state() -> None:
    """The hooks by which leaves are watched are graphgrow's own."""
    graph = gg.trace(nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 2))), X, leaves=["1"])
    assert "which the graph does not" not in graph.explain()
