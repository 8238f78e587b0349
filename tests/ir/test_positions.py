"""Where units lie along an axis, against axes that are really laid out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.ir.positions import Units, axis_map, grown_size, occurrences
from graphgrow.ir.terms import Concat, Product, Space, concat, leaves, normal, product
from tests.effort import examples
from tests.ir.labels import positions, space_lists, terms


def _grown(term: Any, space: Space, size: int, twins: dict[Space, Space]) -> Any:
    """The same term with another size of one space; every other space keeps its own."""
    term = normal(term)
    if isinstance(term, Space):
        return twins.setdefault(term, Space(size if term is space else term.size))
    if isinstance(term, Product):
        return product(_grown(factor, space, size, twins) for factor in term.factors)
    return concat(_grown(part, space, size, twins) for part in term.parts)


@examples(60)
@given(data=st.data())
def test_the_map_of_an_axis_is_that_of_the_laid_out_axis(data: st.DataObject) -> None:
    spaces = data.draw(space_lists())
    term = data.draw(terms(spaces))
    space = data.draw(st.sampled_from(spaces))
    added = data.draw(st.lists(st.integers(0, space.size - 1), min_size=1, max_size=3))
    units = Units(space, torch.cat([torch.arange(space.size), torch.tensor(added)]))
    if _squared(term, space):
        return  # declined by the planner: no place of the new units would be the right one
    found = axis_map(term, units)

    twins: dict[Space, Space] = {}
    child = _grown(term, space, units.new_size, twins)
    numbers = {twins[s]: i for i, s in enumerate(dict.fromkeys(leaves(term)))}
    new_places = positions(child, numbers)
    old_places = positions(term, {s: i for i, s in enumerate(dict.fromkeys(leaves(term)))})
    mine = numbers.get(twins.get(space, Space(0)), -1)
    origin = units.source.tolist()
    assert child.size == grown_size(term, {space: units.new_size}) == len(new_places) == len(found.source)
    for position, place in enumerate(new_places):
        source = tuple((number, origin[unit] if number == mine else unit) for number, unit in place)
        assert old_places[int(found.source[position])] == source
        unit = next((unit for number, unit in place if number == mine), -1)
        assert int(found.unit[position]) == unit
        assert bool(found.added[position]) is (unit >= space.size)
        assert (int(found.occurrence[position]) >= 0) is (unit >= 0)
    assert [old_places[i] for i in found.source[found.kept].tolist()] == old_places


def _squared(term: Any, space: Space) -> bool:
    term = normal(term)
    if isinstance(term, Space):
        return False
    children = term.factors if isinstance(term, Product) else term.parts
    holding = [child for child in children if occurrences(child, space)]
    return (isinstance(term, Product) and len(holding) > 1) or any(_squared(child, space) for child in holding)


@examples(30)
@given(data=st.data())
def test_each_occurrence_has_places_of_its_own(data: st.DataObject) -> None:
    spaces = data.draw(space_lists())
    term = data.draw(terms(spaces))
    space = data.draw(st.sampled_from(spaces))
    if _squared(term, space):
        return
    units = Units(space, torch.arange(space.size + 2) % space.size)
    found = axis_map(term, units)
    seen = set(found.occurrence.tolist()) - {-1}
    assert seen == set(range(occurrences(term, space)))
    for occurrence in seen:
        here = found.unit[found.occurrence == occurrence]
        counts = torch.bincount(here, minlength=units.new_size)
        assert len(set(counts.tolist())) == 1, "each unit lies at equally many places of an occurrence"


def test_units_lie_at_the_end_of_each_group_and_part() -> None:
    group, width, other = Space(2), Space(3), Space(2)
    units = Units(width, torch.tensor([0, 1, 2, 1]))
    inner = axis_map(Product((group, width)), units)
    assert inner.source.tolist() == [0, 1, 2, 1, 3, 4, 5, 4]
    assert inner.kept.tolist() == [0, 1, 2, 4, 5, 6]
    behind = axis_map(Concat((other, width, other)), units)
    assert behind.source.tolist() == [0, 1, 2, 3, 4, 3, 5, 6]
    assert behind.occurrence.tolist() == [-1, -1, 0, 0, 0, 0, -1, -1]
    outer = axis_map(Product((group, width)), Units(group, torch.tensor([0, 1, 0])))
    assert outer.source.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize(
    ("source", "uniform"),
    [([0, 1, 0, 1], True), ([0, 1, 1], False), ([0, 1], True), ([0, 1, 0, 1, 1, 0], True), ([0, 1, 0, 0], False)],
)
def test_copies_are_uniform_where_every_position_has_as_many(source: list[int], uniform: bool) -> None:
    space, other = Space(2), Space(3)
    units = Units(space, torch.tensor(source))
    for term in (space, Product((space, other)), Product((other, space)), Concat((space, space))):
        assert axis_map(term, units).uniform is uniform
    assert axis_map(Concat((space, other)), units).uniform is (len(source) == 2), "one part alone"
    assert axis_map(other, units).uniform, "an axis without the space"
