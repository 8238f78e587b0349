"""A buffer that the forward writes takes no gradient that it does not take in the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg


class Remembers(nn.Module):
    """Keeps the size of its last input, and the last value behind its map, cut off from its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("seen", torch.zeros(3, 4))
        self.register_buffer("held", torch.zeros(3, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.copy_(x.abs())
        h = torch.relu(self.first(x))
        self.held.copy_(h.detach().exp())
        return self.last(h)


class Learns(nn.Module):
    """Keeps a value with its gradient, as the model that is grown has it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("held", torch.zeros(3, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        self.held.copy_(h.abs())
        return self.last(h)


@pytest.mark.parametrize(("site", "buffer"), [(":abs", "seen"), (":exp", "held")])
def test_a_block_whose_gradient_would_reach_a_buffer_is_declined(site: str, buffer: str) -> None:
    graph = gg.trace(Remembers(), torch.randn(3, 4))
    with pytest.raises(gg.Declined, match=f"`{buffer}` is written in the forward and takes no gradient"):
        gg.apply(graph, f"deepen({site})")


@pytest.mark.parametrize("text", ["deepen(:relu)", "add-branch(last, kind=mlp)"])
def test_what_leaves_buffers_as_they_are_is_admitted(text: str) -> None:
    graph = gg.trace(Remembers(), torch.randn(3, 4))
    grown = gg.apply(graph, text)
    assert gg.verify(graph, grown).preserved is True
    grown.module(torch.randn(3, 4)).sum().backward()
    assert not any(buffer.requires_grad for buffer in grown.module.buffers())


def test_a_gradient_that_the_model_has_is_kept() -> None:
    model = Learns()
    graph = gg.trace(model, torch.randn(3, 4))
    grown = gg.apply(graph, "deepen(:relu)")
    model(torch.randn(3, 4))
    grown.module(torch.randn(3, 4))
    assert [buffer.requires_grad for buffer in (model.held, grown.module.get_buffer("held"))] == [True, True]
