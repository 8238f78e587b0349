"""Loops over the parts of a tensor: a graph holds for as many as there were, unless the model itself says how many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import require_decision
from tests.rewrite.small_models import Forward

Run = Callable[[Any, torch.Tensor], torch.Tensor]

# What is iterated, and sizes (batch, length) at which there are as many parts, and others, as in the example's (2, 6).
VARYING: dict[str, tuple[Run, list[tuple[int, int]], list[tuple[int, int]]]] = {
    "samples": (lambda m, x: torch.stack([m.b(m.a(t)) for t in x.unbind(0)]), [(2, 9)], [(3, 6), (1, 6)]),
    "steps": (lambda m, x: torch.stack([m.b(m.a(t)) for t in torch.unbind(x, dim=1)], 1), [(3, 6)], [(2, 5)]),
    "single": (lambda m, x: torch.cat([m.b(m.a(t)) for t in x.split(1, dim=1)], 1), [(3, 6)], [(2, 9)]),
    "windows": (lambda m, x: torch.cat([m.b(m.a(t)) for t in x.split(2, 1)], 1), [(2, 5), (3, 6)], [(2, 7), (2, 3)]),
    "chunks": (lambda m, x: torch.cat([m.b(m.a(t)) for t in x.chunk(4, 1)], 1), [(2, 5)], [(2, 7)]),
    "counted": (lambda m, x: m.b(m.a(x)) / len(x.transpose(0, 1).tanh().unbind(0)), [(3, 6)], [(2, 7)]),
}


def _traced(run: Run) -> tuple[nn.Module, gg.Graph]:
    model = Forward(run, a=nn.Linear(4, 6), b=nn.Linear(6, 2)).double()
    return model, gg.trace(model, torch.randn(2, 6, 4).double())


@pytest.mark.parametrize("name", VARYING)
def test_other_numbers_of_parts_are_refused(name: str) -> None:
    run, same, others = VARYING[name]
    model, graph = _traced(run)
    grown = gg.apply(graph, "widen(a, extra=2)")
    for batch, length in [(2, 6), *same]:
        x = torch.randn(batch, length, 4).double()
        assert torch.allclose(grown.module(x), model(x), rtol=0, atol=1e-12)
    for batch, length in others:
        with pytest.raises(ValueError, match="decides by the sizes of its inputs: the graph holds where that gives"):
            grown.module(torch.randn(batch, length, 4).double())


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.b(torch.cat([t.tanh() for t in m.a(x).split(2, -1)], -1)),
        lambda m, x: m.b(torch.cat([t.tanh() for t in m.a(x).relu().chunk(3, -1)], -1)),
        lambda m, x: m.b(
            torch.stack(
                [t.tanh() for t in m.a(x).reshape(*x.shape[:2], 3, 2).permute(2, 0, 1, 3).unbind(0)], 2
            ).flatten(2)
        ),
        lambda m, x: m.b(m.a(x) + sum(row.sum() for row in m.a.weight.unbind(0))),
        lambda m, x: m.b(sum(torch.stack([m.a(x), m.a(-x)]).unbind(0))),
        lambda m, x: m.b(m.a(x.unbind(1)[-1])),
    ],
    ids=["width", "thirds", "heads", "rows", "stacked", "indexed"],
)
def test_parts_that_the_model_itself_counts_need_no_check(run: Run) -> None:
    model, graph = _traced(run)
    assert not any(node.target is require_decision for node in graph.module.graph.nodes)
    x = torch.randn(3, 5, 4).double()
    assert torch.allclose(graph.module(x), model(x), rtol=0, atol=1e-12)
