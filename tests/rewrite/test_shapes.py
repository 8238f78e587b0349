"""Example values after an edit: those that a fresh run of the whole graph finds, though few nodes are run."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import graphgrow as gg
from graphgrow.ir.answers import Answers
from graphgrow.ir.meta import MetaRunner, propagate
from graphgrow.network.network import Network, placeholder_values
from graphgrow.rewrite.apply import replay
from tests.rewrite.small_models import Forward


def far_sizes() -> Forward:
    """Sizes that are read at one place and used at another."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        hidden = m.first(x)
        batch, count, width = hidden.shape
        return m.last(F.layer_norm(hidden.reshape(batch, count * width).view(batch, count, width), (width,)))

    return Forward(run, first=nn.Linear(3, 4), last=nn.Linear(4, 2))


CASES = {
    "sizes": lambda: gg.trace(far_sizes(), torch.randn(2, 5, 3)),
    "resnet": lambda: gg.trace("graphgrow:resnet"),
    "densenet": lambda: gg.trace("graphgrow:densenet"),
    "gpt": lambda: gg.trace("graphgrow:gpt"),
    "vit": lambda: gg.trace("graphgrow:vit"),
}


def seen(graph: Network) -> list[Any]:
    """What operators can see of every example value."""
    values = [pytree.tree_flatten(node.meta["value"]) for node in graph.module.graph.nodes]
    return [
        ([(t.shape, t.dtype, t.stride()) if isinstance(t, torch.Tensor) else t for t in leaves], spec)
        for leaves, spec in values
    ]


def afresh(graph: Network) -> Network:
    again = dataclasses.replace(graph, module=copy.deepcopy(graph.module))
    for node in again.module.graph.nodes:
        node.meta.pop("value")
    propagate(again.module, placeholder_values(again.module, again.inputs))
    return again


@pytest.mark.parametrize("case", CASES)
def test_every_mutation_leaves_the_values_of_a_fresh_run(case: str) -> None:
    graph = CASES[case]()
    outline = graph._outline.network  # structure alone
    kinds: dict[tuple[str, str], list[gg.Mutation]] = {}
    for mutation in graph.mutations():
        kinds.setdefault((mutation.name, getattr(mutation, "kind", "")), []).append(mutation)
    for mutations in kinds.values():
        for mutation in mutations[:: max(len(mutations) // 3, 1)]:
            child = gg.apply(outline, mutation)
            again = afresh(child)
            assert seen(child) == seen(again), mutation
            assert child.groups
            assert [str(group) for group in child.groups] == [str(group) for group in again.groups]


@dataclasses.dataclass
class Answer:
    hidden: torch.Tensor
    last: torch.Tensor


def test_outputs_that_are_dataclasses_of_ones_own_are_compared_field_by_field() -> None:
    def run(m: Any, x: torch.Tensor) -> Answer:
        hidden = m.second(torch.relu(m.first(x)))
        return Answer(hidden, m.last(hidden))

    model = Forward(run, first=nn.Linear(3, 4), second=nn.Linear(4, 5), last=nn.Linear(5, 2))
    graph = gg.trace(model, torch.randn(2, 3))
    for mutation in ("deepen(second, kind=mlp)", "widen(first, extra=1)"):
        assert gg.verify(graph, gg.apply(graph, mutation)).preserved
    grown = gg.apply(graph, "grow-outputs(last, extra=1)").module(torch.randn(2, 3))
    assert (grown.hidden.shape, grown.last.shape) == ((2, 5), (2, 3))


def test_only_what_an_edit_reaches_is_run() -> None:
    graph = CASES["resnet"]()
    assert graph.analysis.facts
    site = next(group.name for group in graph.groups if len(group.members) == 2)
    run: list[str] = []
    original = MetaRunner.run_node

    def noted(self: MetaRunner, node: fx.Node) -> Any:
        run.append(node.name)
        return original(self, node)

    with mock.patch.object(MetaRunner, "run_node", noted):
        child = gg.apply(graph, f"widen({site}, extra=2)")
        assert child.analysis.facts
    assert 0 < len(run) <= 4, run


def test_what_a_trace_and_its_children_have_answered_is_not_asked_again() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.AvgPool1d(2), nn.Conv1d(4, 2, 1))
    asked: list[type] = []
    original = Answers.of

    def noted(self: Answers, called: Any, args: Any, kwargs: Any, run: Callable[[], Any]) -> Any:
        def counted() -> Any:
            asked.append(type(called))
            return run()

        return original(self, called, args, kwargs, counted)

    with mock.patch.object(Answers, "of", noted):
        graph = gg.trace(model, torch.randn(2, 3, 8))
        assert graph.analysis.facts
        assert asked == [nn.Conv1d, nn.AvgPool1d, nn.Conv1d]
        grown = gg.apply(graph, "widen(0, extra=1)")
        asked.clear()
        assert replay(graph, grown.ledger).analysis.facts
    assert asked == []


def test_a_module_in_another_dtype_has_other_values() -> None:
    child = gg.apply(CASES["gpt"](), "deepen(blocks.0, kind=copy)")
    child.module.bfloat16()
    fact = next(node for node in child.analysis.facts if node.op == "call_module")
    assert fact.meta["value"].dtype is torch.bfloat16
