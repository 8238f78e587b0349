"""Sizes that are computed from others follow growth at every input, not at the example's alone."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import fx, nn

import graphgrow as gg
from graphgrow.ir.facts import SizeSlot, Slot
from graphgrow.ir.terms import Space
from graphgrow.rewrite.proportion import in_proportion
from tests.preserved import assert_preserved

Run = Callable[[Any, torch.Tensor], torch.Tensor]


class Folded(nn.Module):
    """Heads folded into the batch, a norm, and unfolded again."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.first, self.norm, self.last, self._run = nn.Linear(5, 24), nn.LayerNorm(4), nn.Linear(24, 3), run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._run(self, x)


def _einops(m: Any, x: torch.Tensor) -> torch.Tensor:
    rows = m.norm(rearrange(m.first(x), "b t (h d) -> (b h) t d", h=6))
    return m.last(rearrange(rows, "(b h) t d -> b t (h d)", h=6))


def _by_hand(m: Any, x: torch.Tensor) -> torch.Tensor:
    rows = m.first(x).view(len(x), -1, 6, 4).transpose(1, 2).reshape(len(x) * 6, -1, 4)
    samples = m.norm(rows).shape[0] // 6
    return m.last(m.norm(rows).reshape(samples, 6, -1, 4).transpose(1, 2).flatten(2))


def _in_pairs(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Two streams of heads, of which the batch takes both along (the memories of product keys)."""
    rows = m.norm(rearrange(m.first(x), "b t (p h d) -> (b p h) t d", p=2, h=3))
    first, second = rearrange(rows, "(b p h) t d -> p b t h d", p=2, h=3).unbind(0)
    return m.last(torch.cat([first.flatten(2), second.flatten(2).tanh()], -1))


def _halves(m: Any, x: torch.Tensor) -> torch.Tensor:
    rows = m.norm(m.first(x).view(len(x), -1, 6, 4).transpose(1, 2).reshape(len(x) * 6, -1, 4))
    pairs = rows.shape[0] // 6 * 2  # each sample's heads in two halves
    halves = rows.reshape(pairs, 3, -1, 4).reshape(len(x), 6, -1, 4)
    return m.last(halves.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("run", [_einops, _by_hand, _in_pairs, _halves])
@pytest.mark.parametrize("pass_name", ["widen", "split"])
@pytest.mark.parametrize("batch", [2, 6])
def test_what_is_divided_off_a_size_that_grew_is_divided_off_it_anew(run: Run, pass_name: str, batch: int) -> None:
    model = Folded(run).double()
    graph = gg.trace(model, torch.randn(batch, 7, 5).double())
    found = [mutation for mutation in graph.mutations(pass_name) if "first" in str(mutation)]
    assert len(found) == 2 + (run is _halves)  # heads, or both numbers of which they are made, and the width of one
    for mutation in found:
        grown = gg.apply(graph, mutation)
        assert_preserved(graph, grown, batch_sizes=(None, 3))
        for other in (torch.randn(5, 7, 5).double(), torch.randn(1, 3, 5).double()):
            assert torch.allclose(grown.module(other), model(other), atol=1e-12), mutation


def _counted(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The number of samples by that of all entries, which no single axis is."""
    rows = m.norm(m.first(x).view(len(x), -1, 6, 4).transpose(1, 2).reshape(len(x) * 6, -1, 4))
    return m.last(rows.reshape(rows.numel() // 168, 6, -1, 4).transpose(1, 2).flatten(2))


def test_what_would_be_rounded_for_other_inputs_is_declined() -> None:
    graph = gg.trace(Folded(_counted).double(), torch.randn(2, 7, 5).double())
    with pytest.raises(gg.Declined, match="a size of `reshape_1` is divided off one that grows, and would be rounded"):
        gg.apply(graph, "widen(first:0, extra=3)")
    grown = gg.apply(graph, "widen(first:0, extra=6)")  # twice as many are divided by twice as much
    assert_preserved(graph, grown, batch_sizes=(None, 3))


def test_nothing_gives_no_proportion() -> None:
    graph = fx.Graph()
    size = graph.placeholder("size")
    half = graph.call_function(operator.floordiv, (size, 2))
    reader = graph.call_function(torch.zeros, (half,))
    size.meta["value"], half.meta["value"] = 1, 0
    slot = SizeSlot(Slot(("args", 0), False), (Space(1),), False)
    with pytest.raises(gg.Declined, match="give no proportion to follow by"):
        in_proportion(reader, slot, half, 1, {})
