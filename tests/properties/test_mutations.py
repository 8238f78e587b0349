"""Every mutation that is offered on any model applies, preserves, prints, replays, and leaves the parent alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import graphgrow as gg
from graphgrow.blocks.activations import ACTIVATIONS
from graphgrow.graph import Graph
from graphgrow.network.junctions import junctions
from graphgrow.passes import add_branch, deepen
from graphgrow.passes.add_branch import AddBranch
from graphgrow.passes.add_skip import AddSkip
from graphgrow.passes.deepen import Deepen
from graphgrow.passes.enlarge_kernel import EnlargeKernel
from graphgrow.passes.split import Split
from graphgrow.passes.swap_activation import SwapActivation
from graphgrow.passes.widen import Widen
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.contract import Mutation
from tests.effort import examples
from tests.preserved import Observed, assert_preserved, assert_same_bits, assert_untouched, fingerprint
from tests.properties.models import FAMILIES, models
from tests.properties.written import Model

MOST = 4  # about as many mutations of one pass are tried on one model
LARGE = 20_000  # parameters above which a chain goes on in small steps


def _check(graph: Graph, mutation: Mutation, seed: int, seen: Observed) -> None:
    """One mutation, applied by its text; what was seen of the parent is used again."""
    text = str(mutation)
    assert gg.parse_mutation(text) == mutation
    child = gg.apply(graph, text, seed=seed)
    assert_preserved(graph, child, seed, seen=(seen, Observed(child)))
    assert (child.parameter_count, child.text()) != (graph.parameter_count, graph.text())
    assert [entry.mutation for entry in child.ledger][-1] == text
    assert_same_bits(replay(graph, child.ledger.entries[len(graph.ledger) :]).module, child.module)


def _check_unless_refused(graph: Graph, mutation: Mutation, seen: Observed) -> None:
    """Only applying may refuse; what then fails, a replay say, is a failure."""
    try:
        gg.apply(graph, mutation, seed=1)
    except (gg.Declined, gg.MutationError):
        return
    _check(graph, mutation, 1, seen)


@pytest.mark.parametrize("strategy", FAMILIES.values(), ids=FAMILIES)
@examples(6)
@given(data=st.data())
def test_every_offered_mutation(strategy: st.SearchStrategy[Model], data: st.DataObject) -> None:
    model, inputs = data.draw(strategy)
    graph = gg.trace(model, inputs)
    assert not graph.analysis.unknown, graph.explain()
    before, seen = fingerprint(graph.module), Observed(graph)
    for pass_name in gg.pass_names():
        mutations = list(graph.mutations(pass_name))
        stride = max(1, len(mutations) // MOST)
        for number, mutation in enumerate(mutations[data.draw(st.integers(0, stride - 1)) :: stride]):
            _check(graph, mutation, number, seen)
    assert_untouched(graph.module, before)


@examples(12)
@given(data=st.data())
def test_other_options_are_exact_or_decline(data: st.DataObject) -> None:
    """Any number of units, any subset of them, several copies: of groups that are offered and of others."""
    model, inputs = data.draw(models())
    graph = gg.trace(model, inputs)
    seen = Observed(graph)
    for group in graph.groups:
        chosen = data.draw(st.sets(st.integers(0, group.size - 1), min_size=1, max_size=3))
        copies = data.draw(st.integers(2, 3))
        wanted: list[Mutation] = [
            Widen(group.name, data.draw(st.integers(1, 3))),
            Split(group.name, tuple(sorted(chosen)), copies),
        ]
        for mutation in wanted:
            _check_unless_refused(graph, mutation, seen)


@examples(8)
@given(data=st.data())
def test_what_a_search_may_draw_is_exact_or_declines(data: st.DataObject) -> None:
    """Offered mutations with other options, drawn at random."""
    model, inputs = data.draw(models())
    graph = gg.trace(model, inputs)
    seen = Observed(graph)
    draw = random.Random(data.draw(st.integers(0, 2**31)))
    for pass_name in gg.pass_names():
        offered = list(graph.mutations(pass_name))
        for mutation in draw.sample(offered, min(2, len(offered))):
            varied = mutation.varied(graph, draw)
            assert varied.site_name == mutation.site_name
            _check_unless_refused(graph, varied, seen)


@examples(12)
@given(data=st.data())
def test_blocks_of_every_kind_are_exact_or_decline(data: st.DataObject) -> None:
    """Where the default is another kind, or none at all."""
    model, inputs = data.draw(models())
    graph = gg.trace(model, inputs)
    places = list(junctions(graph))
    assume(places)
    site, other = (graph.sites.name(data.draw(st.sampled_from(places))) for _ in range(2))
    called = [name for name, part in graph.module.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
    wanted: list[Mutation] = [
        *(Deepen(site, kind) for kind in deepen.KINDS),
        *(AddBranch(data.draw(st.sampled_from(called)), kind) for kind in add_branch.KINDS),
        SwapActivation(site, data.draw(st.sampled_from(sorted(ACTIVATIONS)))),
        EnlargeKernel(data.draw(st.sampled_from(called)), data.draw(st.integers(2, 7))),
        AddSkip(site, other),
    ]
    seen = Observed(graph)
    for mutation in wanted:
        _check_unless_refused(graph, mutation, seen)


@examples(8)
@given(data=st.data())
def test_chains_stay_preserved_and_replay_to_the_bit(data: st.DataObject) -> None:
    model, inputs = data.draw(models())
    base = gg.trace(model, inputs)
    graph, modes = base, {"eval", "train"}
    for number in range(data.draw(st.integers(2, 10))):
        offered = [mutation for name in gg.pass_names() for mutation in graph.mutations(name)]
        if not offered:
            break
        mutation = data.draw(st.sampled_from(offered))
        if graph.parameter_count > LARGE:
            widenings = [m for m in offered if isinstance(m, Widen)]
            if not widenings:
                break
            mutation = Widen(data.draw(st.sampled_from(widenings)).group, 1)
        child = gg.apply(graph, mutation, seed=number)
        assert_preserved(graph, child, number)
        modes &= child.steps[-1].exact_in
        graph = child
    assert "eval" in modes
    again = gg.replay(model, inputs, gg.Ledger.from_json(graph.ledger.to_json()))
    assert_same_bits(again.module, graph.module)
    assert again.text() == graph.text()
    whole = gg.apply(base, [entry.mutation for entry in graph.ledger], seed=0)
    assert {n: p.shape for n, p in whole.module.named_parameters()} == {
        n: p.shape for n, p in graph.module.named_parameters()
    }
