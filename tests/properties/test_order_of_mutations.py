"""Mutations on different groups may be applied in either order; a seed decides all that is drawn."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.rewrite.contract import Mutation
from tests.effort import examples
from tests.preserved import assert_preserved, assert_same_bits
from tests.properties.models import models


@examples(8)
@given(data=st.data())
def test_either_order_leads_to_one_architecture(data: st.DataObject) -> None:
    graph = gg.trace(*data.draw(models()))
    offered = [*graph.mutations("widen"), *graph.mutations("split")]
    assume(len({mutation.site_name for mutation in offered}) > 1)
    first = data.draw(st.sampled_from(offered))
    second = data.draw(st.sampled_from([other for other in offered if other.site_name != first.site_name]))
    one, other = _both(graph, first, second), _both(graph, second, first)
    assert one.text() == other.text()
    assert one.parameter_count == other.parameter_count


def _both(graph: Graph, first: Mutation, second: Mutation) -> Graph:
    """One after the other, each preserved."""
    middle = gg.apply(graph, first, seed=1)
    assert_preserved(graph, middle)
    child = gg.apply(middle, second, seed=2)
    assert_preserved(middle, child)
    return child


@examples(6)
@given(data=st.data())
def test_a_seed_decides_all_that_is_drawn(data: st.DataObject) -> None:
    graph = gg.trace(*data.draw(models()))
    offered = list(graph.mutations(data.draw(st.sampled_from(gg.pass_names()))))
    assume(offered)
    mutation, seed = data.draw(st.sampled_from(offered)), data.draw(st.integers(0, 2**63 - 1))
    assert_same_bits(gg.apply(graph, mutation, seed=seed).module, gg.apply(graph, mutation, seed=seed).module)
