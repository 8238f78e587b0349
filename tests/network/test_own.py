"""A copy of its own shares nothing, computes the same, and keeps what is tied tied."""

from __future__ import annotations

import torch

import graphgrow as gg
from graphgrow.network.own import own
from tests.preserved import assert_same_bits


def test_nothing_is_shared_and_everything_else_stays() -> None:
    graph = gg.apply(gg.trace("graphgrow:gpt"), "widen(embed, extra=2)")
    twin = own(graph)
    assert_same_bits(graph.module, twin.module)
    assert not {id(t) for t in graph.module.parameters()} & {id(t) for t in twin.module.parameters()}
    assert sum(1 for _ in twin.module.parameters()) == sum(1 for _ in graph.module.parameters())
    assert (twin.ledger, twin.steps, twin.inputs) == (graph.ledger, graph.steps, graph.inputs)
    with torch.no_grad():
        for parameter in twin.module.parameters():
            parameter.zero_()
    assert any(parameter.any() for parameter in graph.module.parameters())
