"""Children keep to the limits, follow from the draws, share what did not change, and compute the parent's function."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

import graphgrow as gg
from graphgrow.errors import MutationError, SearchError
from graphgrow.graph import Graph
from graphgrow.search.recipe import Limits, Variation
from graphgrow.search.variation import cross, draw_mutation, mutate, within
from tests.preserved import assert_same_bits
from tests.search.small import data, model


@pytest.fixture(scope="module")
def parent() -> Graph:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return gg.trace(model(), data().training.inputs[:2])


def names(graph: Graph) -> list[str]:
    return [entry.mutation for entry in graph.ledger]


def test_mutations_are_drawn_by_their_rates(parent: Graph) -> None:
    draw = random.Random(0)
    drawn = [draw_mutation(parent, draw, {"widen": 3.0, "deepen": 1.0, **others()}) for _ in range(200)]
    counts = Counter(None if mutation is None else mutation.name for mutation in drawn)
    assert set(counts) == {"widen", "deepen"}
    assert 2.0 < counts["widen"] / counts["deepen"] < 4.5
    sizes = {str(mutation) for mutation in drawn}
    assert len(sizes) > 4  # sizes are drawn too


def others() -> dict[str, float]:
    return {name: 0.0 for name in gg.pass_names() if name not in ("widen", "deepen")}


def test_unknown_passes_and_zero_rates_are_refused(parent: Graph) -> None:
    with pytest.raises(MutationError, match="there is no pass `wide`"):
        draw_mutation(parent, random.Random(0), {"wide": 1.0})
    with pytest.raises(SearchError, match="all rates are zero"):
        draw_mutation(parent, random.Random(0), dict.fromkeys(gg.pass_names(), 0.0))


def test_children_follow_from_the_draws_and_are_exact(parent: Graph) -> None:
    found: set[str] = set()
    for seed in range(12):
        child = mutate(parent, random.Random(seed), Variation(most=3), Limits())
        again = mutate(parent, random.Random(seed), Variation(most=3), Limits())
        assert names(child) == names(again)
        assert_same_bits(child.module, again.module)
        assert gg.verify(parent, child).preserved
        assert 1 <= len(child.ledger) <= 3
        found.update(mutation.partition("(")[0] for mutation in names(child))
    assert len(found) >= 4


def test_no_child_is_beyond_the_limits(parent: Graph) -> None:
    limits = Limits(parameters=parent.parameter_count + 20, flops=parent.flops + 500)
    for seed in range(8):
        child = mutate(parent, random.Random(seed), Variation(most=4, tries=60), limits)
        assert within(child, limits)
        assert len(child.ledger) > 0
    with pytest.raises(SearchError, match="no mutation was admissible in 3 draws; raise the limits, or `tries`"):
        mutate(parent, random.Random(0), Variation(rates={**others(), "deepen": 0.0}, tries=3), Limits(parameters=1))


def test_tensors_that_did_not_change_are_the_parents(parent: Graph) -> None:
    child = mutate(parent, random.Random(1), Variation(rates={**others(), "widen": 0.0}, most=1), Limits())
    mine, theirs = dict(parent.module.named_parameters()), dict(child.module.named_parameters())
    assert mine
    assert all(theirs[name] is tensor for name, tensor in mine.items())


def test_crossover_grafts_on_the_fitter_parent(parent: Graph) -> None:
    shared = gg.apply(parent, "widen(0, extra=1)", seed=1)
    fitter = gg.apply(shared, ["deepen(2, kind=conv)"], seed=2)
    with torch.no_grad():
        for parameter in fitter.module.parameters():  # it was trained since
            parameter.mul_(1.5)
    other = gg.apply(shared, ["swap-activation(2, to=gelu)", "widen(0, extra=2)", "enlarge-kernel(0, to=5)"], seed=3)
    seen: Counter[str] = Counter()
    for seed in range(20):
        try:
            child = cross(fitter, other, random.Random(seed), Limits())
        except SearchError:  # nothing was drawn
            continue
        assert names(child)[:2] == names(fitter)
        grafted = names(child)[2:]
        assert grafted == [name for name in names(other)[1:] if name in grafted]
        assert gg.verify(fitter, child).preserved
        assert child.module.get_parameter("4.bias") is fitter.module.get_parameter("4.bias")
        seen.update(grafted)
    assert set(seen) == set(names(other)[1:])


def test_what_does_not_apply_is_left_out(parent: Graph) -> None:
    fitter = gg.apply(parent, "enlarge-kernel(0, to=7)")
    other = gg.apply(parent, ["enlarge-kernel(0, to=5)", "widen(0, extra=3)"])
    found = {tuple(names(cross(fitter, other, random.Random(seed), Limits()))[1:]) for seed in (0, 1, 4) if drawn(seed)}
    assert found == {("widen(0, extra=3)",)}
    tight = Limits(parameters=fitter.parameter_count)
    with pytest.raises(SearchError, match="no mutations that could be recombined"):
        cross(fitter, other, random.Random(0), tight)
    with pytest.raises(SearchError):
        cross(fitter, fitter, random.Random(0), Limits())


def drawn(seed: int) -> bool:
    """Whether the second of two coins is heads."""
    draw = random.Random(seed)
    return [draw.random() < 0.5, draw.random() < 0.5][1]


def test_every_width_may_grow_at_once(parent: Graph) -> None:
    none = dict.fromkeys(gg.pass_names(), 0.0)
    children = [mutate(parent, random.Random(s), Variation(none, scaling=1.0, most=1), Limits()) for s in range(16)]
    assert {child.group("0").size for child in children} == {3, 4}
    assert all(name.startswith("widen(") for child in children for name in names(child))
    assert all(gg.verify(parent, child).preserved for child in children[:2])
    mixed = [mutate(parent, random.Random(s), Variation({**none, "widen": 1.0}, scaling=0.0), Limits()) for s in (0, 1)]
    again = [mutate(parent, random.Random(s), Variation({**none, "widen": 1.0}), Limits()) for s in (0, 1)]
    assert [names(child) for child in mixed] == [names(child) for child in again]
