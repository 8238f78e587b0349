"""Networks with something between two layers that the values of inputs decide, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import graphgrow as gg
from tests.preserved import assert_preserved

Between = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Two layers, and something between them; the values of inputs decide, none of the width between."""

    def __init__(self, between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.norm(self.first(x)), x))


def count(x: torch.Tensor) -> Any:
    """A tensor, which torch's types do not admit as a number."""
    return (x[:, 0] > 0).sum()


def groups(x: torch.Tensor) -> torch.Tensor:
    return (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def rows(count: int) -> torch.Tensor:
    """The last has no entry that is not positive."""
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(count))
    x[-1] = x[-1].abs() + 0.1
    return x


def assert_follows(between: Between) -> None:
    """The graph gives other inputs what the model gives them, and its capture leaves the model as it was."""
    model = Net(between).eval()
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
    graph = gg.trace(model, rows(4), way="fx")
    assert graph.modes == {"train", "eval"}
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in model.named_buffers())
    for count in (1, 4, 9):
        assert torch.equal(graph.module(rows(count)), model(rows(count)))


def assert_grows(between: Between) -> None:
    """The width between both layers can grow."""
    model = Net(between).double().eval()
    graph = gg.trace(model, rows(4).double(), way="fx")
    wider = gg.apply(graph, "widen(first, extra=2)")
    assert_preserved(graph, wider)
    grown = gg.apply(wider, "split(first)")
    assert_preserved(wider, grown)
    assert gg.verify(graph, grown).preserved
    inputs = rows(7).double()
    torch.testing.assert_close(grown.module(inputs), model(inputs), rtol=1e-12, atol=1e-12)
