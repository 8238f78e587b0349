"""What is multiplied by zeros alone is known, and no place for anything new."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.network.unheard import unheard


class ByHand(nn.Module):
    """An LSTM that is spelled out, its gates apart, over two steps from a state of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.forget, self.enter, self.offer, self.emit = (nn.Linear(7, 4) for _ in range(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], 4)
        hidden = torch.zeros_like(state)
        for step in range(2):
            both = torch.cat([x[:, step], hidden], 1)
            kept, new = torch.sigmoid(self.forget(both)), torch.sigmoid(self.enter(both)) * torch.tanh(self.offer(both))
            state = kept * state + new
            hidden = torch.sigmoid(self.emit(both)) * torch.tanh(state)
        result: torch.Tensor = self.head(hidden)
        return result


def test_the_first_forget_gate_of_an_lstm_by_hand_is_no_place_for_anything_new() -> None:
    graph = gg.trace(ByHand().double(), torch.randn(3, 2, 3, dtype=torch.float64))
    assert {graph.sites.name(node) for node in unheard(graph.module)} == {"forget", ":sigmoid"}
    named = {
        one.site_name
        for name in ("swap-activation", "mix-operators", "add-branch", "deepen")
        for one in graph.mutations(name)
    }
    named |= {one.target for one in graph.mutations("add-skip")}  # type: ignore[attr-defined]
    assert not named & {"forget", ":sigmoid"}
    assert {"forget@2", ":sigmoid@4", "enter", ":sigmoid@2"} <= named
    listed = [graph.mutations(name) for name in ("swap-activation", "add-branch")]
    refusals = [(one.site, one.reason) for found in listed for one in found.refusals]
    said = "it is multiplied by zeros alone, so that nothing would learn here"
    assert {(":sigmoid", said), ("forget", said)} <= set(refusals)


@pytest.mark.parametrize("site", [":sigmoid", ":sigmoid@4"])
def test_it_is_true_of_what_is_refused_alone(site: str) -> None:
    """Asked for by name it goes, exactly; the share of the new activation has a gradient where it is offered alone."""
    torch.manual_seed(0)
    graph = gg.trace(ByHand().double(), torch.randn(3, 2, 3, dtype=torch.float64))
    grown = gg.apply(graph, f"swap-activation({site}, to=gelu)")
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    assert torch.equal(grown.module(x), graph.module(x))
    grown.module(x).square().sum().backward()
    (share,) = (parameter for name, parameter in grown.module.named_parameters() if name.endswith(".s"))
    assert (share.grad is not None and bool(share.grad)) == (site == ":sigmoid@4")


def test_what_is_written_into_zeros_is_heard() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            gates = torch.sigmoid(self.inner(x))
            sums = torch.zeros_like(gates)
            sums.index_add_(0, index, gates)
            result: torch.Tensor = self.outer(torch.tanh(gates) * sums)
            return result

    graph = gg.trace(Added(), (torch.randn(4, 3), torch.tensor([0, 1, 1, 3])))
    assert not unheard(graph.module)
    assert {":sigmoid", ":tanh"} <= {one.site_name for one in graph.mutations("swap-activation")}
