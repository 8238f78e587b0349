"""What is looked through for its values does not grow along those axes; all else does."""

from __future__ import annotations

from collections.abc import Callable

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
        return self.last(self.after(self.first(x).relu()))


FROZEN: list[tuple[Callable[[torch.Tensor], torch.Tensor], str]] = [
    (lambda h: h * torch.nonzero(h > 0)[:, 1].sum(), "looked through for what is not zero"),
    (lambda h: h * (h > 0).nonzero(as_tuple=True)[0].sum(), "looked through for what is not zero"),
    (lambda h: h * h[0].cumsum(0)[-1].item(), ""),
    (lambda h: h.clamp(max=h.max().item()), ""),
]


@pytest.mark.parametrize(("after", "reason"), FROZEN)
def test_no_growth_changes_what_is_asked(after: Callable[[torch.Tensor], torch.Tensor], reason: str) -> None:
    """Where the axis grows nevertheless, the number is the same: a maximum over copies."""
    graph = gg.trace(Net(after).double(), torch.randn(4, 3).double(), way="fx")
    if reason:
        assert reason in str(graph.group("first").frozen)
    for name in ("widen", "split"):
        for mutation in graph.mutations(name):
            assert_preserved(graph, gg.apply(graph, mutation))


def test_a_number_is_another_in_each_call() -> None:
    """A bound that is positive on the example alone may not be taken for one: zeros would become free."""
    model = Net(lambda h: h.clamp(min=h.detach().mean().item() - 10)).double()
    graph = gg.trace(model, torch.randn(4, 3).double(), way="fx")
    for mutation in graph.mutations("widen"):
        grown = gg.apply(graph, mutation)
        inputs = 100 * torch.randn(5, 3).double()
        torch.testing.assert_close(grown.module(inputs), model(inputs), rtol=1e-10, atol=1e-10)
