"""Cells: occurrences of a space that are told apart, along one axis and beside one of positions."""

from __future__ import annotations

import pytest
import torch

from graphgrow.ir.cells import MOST_POSITIONS, agree, cells_along, cells_of, groups, meeting, take_apart
from graphgrow.ir.positions import Units, axis_map
from graphgrow.ir.terms import Concat, Product, Reason, Space, leaves, normal, unify
from graphgrow.ir.value import Value

WHY = Reason("node", "indexed")


def _three() -> tuple[Space, tuple[Space, ...]]:
    """An axis of three that is taken apart."""
    axis = Space(3)
    positions = take_apart(axis, WHY)
    assert positions is not None
    return axis, positions


def test_an_axis_is_taken_apart_once() -> None:
    axis, positions = _three()
    assert normal(axis) == Concat(positions)
    assert all(position.frozen == WHY for position in positions)
    assert take_apart(axis, Reason("other", "indexed")) == positions
    assert take_apart(Concat((Space(1), Space(1))), WHY) is not None


@pytest.mark.parametrize("axis", [Space(1), Space(MOST_POSITIONS + 1), Concat((Space(1), Space(2)))])
def test_other_axes_are_frozen_as_a_whole(axis: Space | Concat) -> None:
    assert take_apart(axis, WHY) is None
    assert isinstance(axis, Concat) or normal(axis) is axis
    frozen = [axis] if isinstance(axis, Space) else list(axis.parts)
    assert all(part.frozen == WHY for part in frozen if isinstance(part, Space))


def test_what_is_frozen_already_stays_whole() -> None:
    """The sequence of a model's input, for instance: every tensor over it would be cut into its positions."""
    axis = Space(3, frozen=Reason("x", "a model input"))
    assert take_apart(axis, WHY) is None
    assert axis.bound is None


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_places_along_a_packed_axis_are_numbered_like_its_cells(order: tuple[int, ...]) -> None:
    """Row-major over (3, heads, width) in any order: occurrence i lies at the i-th position, whatever is beside it."""
    axis, positions = _three()
    heads, width = Space(2), Space(2)
    factors = [(axis, heads, width)[i] for i in order]
    packed = Product(tuple(factors))
    cells = cells_along(packed, width)
    assert cells == tuple(frozenset((p,)) for p in positions)
    found = axis_map(packed, Units(width, torch.tensor([0, 1, 0])))
    labels = torch.meshgrid(*(torch.arange(3 if f is width else f.size) for f in factors), indexing="ij")
    wanted = {factor: label.flatten() for factor, label in zip(factors, labels, strict=True)}
    assert torch.equal(found.occurrence, wanted[axis])
    assert torch.equal(found.unit, wanted[width])
    assert torch.equal(found.added, wanted[width] == 2)


def test_a_view_keeps_the_cells() -> None:
    """Along (3 h d), beside it as (3, h, d), and within a concatenation of three axes that are the same one."""
    packed, (axis, positions), heads, width = Space(12), _three(), Space(2), Space(2)
    unify(packed, Product((axis, heads, width)), WHY)
    along = cells_of(Value((Space(5), packed), "packed"), 1, width)
    beside = cells_of(Value((axis, Space(5), heads, width), "viewed"), 3, width)
    assert along == beside == tuple(frozenset((p,)) for p in positions)
    assert cells_of(Value((axis, heads, width), "weight", parameter=True), 2, width) == (frozenset(),)
    parts = [Space(4), Space(4), Space(4)]
    unify(packed, Concat(tuple(parts)), WHY)
    assert [cells_along(part, width) for part in parts] == [(frozenset(leaves(p)),) for p in positions]


def test_cells_that_name_two_positions_of_one_axis_do_not_meet() -> None:
    _, (first, second, third) = _three()
    _, (other, _, _) = _three()
    a, b, c = frozenset((first,)), frozenset((second,)), frozenset((other,))
    nowhere: frozenset[Space] = frozenset()
    assert not agree(a, b)
    assert agree(a, a)
    assert agree(a, c)
    assert agree(a, nowhere)
    assert list(meeting((a, b), (a, b))) == [(0, 0), (1, 1)]
    assert list(meeting((a, b), (nowhere,))) == [(0, 0), (1, 0)]
    assert list(meeting((nowhere, nowhere), (nowhere, nowhere))) == [(0, 0), (1, 1)]
    assert list(meeting((nowhere,) * 4, (nowhere,) * 2)) == [
        (0, 0),
        (1, 1),
        (2, 0),
        (3, 1),
    ]  # two groups, one's weights
    assert groups((a, b, a | c), a) == {a: [0], a | c: [2]}
    assert groups((a, b), frozenset((third,))) == {}


def test_positions_that_became_one_are_not_told_apart() -> None:
    axis, (first, second, _) = _three()
    width = Space(2)
    unify(first, second, WHY)
    assert cells_of(Value((axis, width), "x"), 1, width) == (frozenset(),)


def test_occurrences_that_do_not_go_into_each_other_are_a_defect() -> None:
    anywhere = frozenset[Space]()
    assert sorted(meeting((anywhere,) * 4, (anywhere,) * 2)) == [(0, 0), (1, 1), (2, 0), (3, 1)]
    with pytest.raises(ValueError, match="an axis occurs 3 times in one factor and 2 in the other"):
        list(meeting((anywhere,) * 3, (anywhere,) * 2))
