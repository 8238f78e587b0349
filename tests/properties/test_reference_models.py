"""Mutations offered on the reference models: all of them on resnet and vit, some on the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.models import MODELS
from graphgrow.rewrite.contract import Mutation
from tests.preserved import assert_preserved, assert_same_bits

SIZES: dict[str, dict[str, int]] = {"resnet": {"width": 4, "depth": 2}, "vit": {"width": 8, "depth": 2, "heads": 2}}
OTHERS = sorted(set(MODELS) - set(SIZES))
CLEAN_UPS = (
    "settle-activation",
    "settle-operators",
    "drop-units",
    "merge-units",
    "drop-branch",
    "drop-identity",
    "shrink-kernel",
)
ELSEWHERE = (  # of which one of the two models has none
    "fold-batch-norm", "add-heads", "upcycle-experts", "grow-vocabulary", "grow-positions",
)  # fmt: skip
LEAST = {
    **dict.fromkeys((*CLEAN_UPS, *ELSEWHERE), 0),
    "widen": 4,
    "split": 4,
    "deepen": 4,
    "add-skip": 4,
    "add-branch": 4,
}
SAMPLED = 4  # mutations of each of the other models


def _graph(name: str, **sizes: int) -> Graph:
    """The model in float64, with statistics of its norms that are not trivial."""
    torch.manual_seed(0)
    model = MODELS[name].factory(**sizes).double().eval()
    for buffer_name, buffer in model.named_buffers():
        if "running" in buffer_name:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    inputs: Any = MODELS[name].example()
    return gg.trace(model, tuple(x.double() if x.is_floating_point() else x for x in inputs))


def _check(graph: Graph, mutation: Mutation) -> None:
    child = gg.apply(graph, str(mutation), seed=1)
    assert_preserved(graph, child)
    assert (child.parameter_count, child.text()) != (graph.parameter_count, graph.text())


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("pass_name", gg.pass_names())
def test_every_mutation_is_preserved(name: str, pass_name: str) -> None:
    graph = _graph(name, **SIZES[name])
    mutations = graph.mutations(pass_name)
    assert len(mutations) >= LEAST.get(pass_name, 1)
    for mutation in mutations:
        _check(graph, mutation)


@pytest.mark.parametrize("name", OTHERS)
def test_some_mutations_are_preserved(name: str) -> None:
    graph = _graph(name)
    for pass_name in gg.pass_names():
        mutations = list(graph.mutations(pass_name))
        for mutation in mutations[:: max(1, len(mutations) // SAMPLED)]:
            _check(graph, mutation)


@pytest.mark.parametrize("name", SIZES)
def test_a_chain_of_ten_replays_to_the_bit(name: str) -> None:
    base = _graph(name, **SIZES[name])
    graph = base
    for number in range(10):
        widenings, splits = list(graph.mutations("widen")), list(graph.mutations("split"))
        chosen = splits[number % len(splits)] if number % 3 == 0 else widenings[3 * number % len(widenings)]
        child = gg.apply(graph, str(chosen), seed=number)
        assert_preserved(graph, child)
        graph = child
    again = gg.replay(base.module, tuple(base.inputs.sample()[0]), graph.ledger)
    assert_same_bits(again.module, graph.module)
    assert again.text() == graph.text()
