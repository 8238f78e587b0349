"""Cells: the parts of a tensor that a growing space occurs in, each of which is filled by itself.

A space may lie several times in one axis (q, k and v packed side by side). It may also lie once beside an axis of a few
positions that a model takes apart by their numbers (a view of that packed axis as (3, heads, width)): such an axis is a
concatenation of its *positions*, spaces of size 1, and at each of them the space is filled by itself. Views and
permutations move positions about; what stands in one position keeps its name, and so its fill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphgrow.ir.terms import Concat, Reason, Space, Term, bind, find, freeze, leaves, normal
from graphgrow.ir.value import Value

Cell = frozenset[Space]  # the positions that an occurrence stands in; where none are told apart, the empty set

_ONCE: tuple[Cell, ...] = (frozenset(),)  # a single occurrence, at no position in particular

MOST_POSITIONS = 8  # an axis with more of them is frozen as a whole: every tensor over it would have as many cells


def take_apart(term: Term, reason: Reason) -> tuple[Space, ...] | None:
    """The positions of an axis that is indexed by constants, none of which can grow.

    Returns:
        One space of size 1 for each position; None where the axis is frozen as a whole instead.
    """
    term = normal(term)
    if isinstance(term, Space) and term.frozen is None and 1 < term.size <= MOST_POSITIONS:
        parts = tuple(Space(1, frozen=reason, of=term) for _ in range(term.size))
        bind(term, Concat(parts))
        return parts
    freeze((term,), reason)
    if not isinstance(term, Concat) or any(part.size != 1 or not isinstance(part, Space) for part in term.parts):
        return None
    found = tuple(leaves(term))
    family = next((part.of for part in found if part.of is not None), Space(len(found)))
    for part in found:
        part.of = part.of or family
    return found


def cells_along(term: Term, space: Space) -> tuple[Cell, ...]:
    """The cells in which a space occurs along one axis, in the order of their first positions."""
    if isinstance(term, Space) and isinstance(found := find(term), Space):  # nearly always
        return _ONCE if found is space else ()
    count, apart = 0, False
    for leaf in leaves(term):
        count += leaf is space
        apart = apart or leaf.of is not None
    if not count or not apart:
        return _ONCE * count
    return _along(normal(term), space)


def cells_of(value: Value, axis: int, space: Space) -> tuple[Cell, ...]:
    """The cells in which a space occurs along one axis of a tensor, by the positions along all its axes.

    A parameter is filled alike at all positions of its other axes, and so is a tensor at those that it has along two of
    them (the scores of an attention): which axis one stands in could not be told.
    """
    own = cells_along(value.axes[axis], space)
    if value.parameter or not own:
        return own
    found = [beside for i, term in enumerate(value.axes) if i != axis and (beside := _positions(term)) is not _ONCE]
    if not found:
        return own
    cut = Counter(family for cells in (own, *found) for family in {each.of for cell in cells for each in cell})
    twice = frozenset(family for family, count in cut.items() if family is not None and count > 1)
    own = tuple(regardless(cell, twice) for cell in own)
    for beside in found:
        told = dict.fromkeys(regardless(cell, twice) for cell in beside)
        own = tuple(outer | inner for outer in told for inner in own)
    return own


def agree(first: Cell, second: Cell) -> bool:
    """Whether two cells may be one place: they name no two positions of one axis."""
    if not first or not second:
        return True
    return not any(a is not b and a.of is b.of for a in first for b in second)


def regardless(cell: Cell, mixed: frozenset[Space]) -> Cell:
    """A cell without its positions along axes whose positions come together."""
    return frozenset(position for position in cell if position.of not in mixed) if mixed else cell


def groups(cells: tuple[Cell, ...], given: Cell = frozenset()) -> dict[Cell, list[int]]:
    """The numbers of the cells that agree with the one given, those at the same positions together."""
    found: dict[Cell, list[int]] = {}
    for number, cell in enumerate(cells):
        if agree(cell, given):
            found.setdefault(cell, []).append(number)
    return found


def meeting(
    left: tuple[Cell, ...], right: tuple[Cell, ...], unaligned: frozenset[Space] = frozenset()
) -> Iterator[tuple[int, int]]:
    """The pairs of cells that meet where two tensors are multiplied along the axis, by number.

    Where the groups of a grouped map come from several parts of a concatenation, the axis of what it reads holds the
    space once for each part, and the weights, which have the axis of one group, hold it once for all of them. Positions
    along an `unaligned` axis all meet each other.

    Raises:
        ValueError: if one does not hold it a whole number of times as often as the other, a defect of a rule.
    """
    others = groups(right)
    for mine, own in groups(left).items():
        for theirs, numbers in others.items():
            if agree(regardless(mine, unaligned), theirs):
                longer, shorter = max(len(own), len(numbers)), min(len(own), len(numbers))
                if longer % shorter:
                    raise ValueError(f"an axis occurs {len(own)} times in one factor and {len(numbers)} in the other")
                yield from ((own[i % len(own)], numbers[i % len(numbers)]) for i in range(longer))


def _along(term: Term, space: Space) -> tuple[Cell, ...]:
    if isinstance(term, Space):
        return _ONCE if term is space else ()
    if isinstance(term, Concat):
        return tuple(cell for part in term.parts for cell in _along(part, space))
    found = _ONCE
    for factor in term.factors:
        inner = _along(factor, space) or _positions(factor)
        found = tuple(outer | cell for outer in found for cell in inner)
    return found


def _positions(term: Term) -> tuple[Cell, ...]:
    """The positions told apart along an axis that a space does not lie in."""
    if isinstance(term, Space):
        found = find(term)
        if isinstance(found, Space):
            return _ONCE if found.of is None else (frozenset((found,)),)
        term = found
    if isinstance(term, Concat):
        return told_apart(term) or _ONCE
    cells = _ONCE
    for factor in term.factors:
        beside = _positions(factor)
        cells = cells if beside is _ONCE else tuple(outer | inner for outer in cells for inner in beside)
    return cells


def told_apart(term: Concat) -> tuple[Cell, ...]:
    """One cell for each part of a concatenation of positions; nothing where it is anything else."""
    if any(part.size != 1 for part in term.parts):
        return ()
    parts = list(leaves(term))
    family = parts[0].of
    if family is None or len(parts) > len(set(parts)) or any(part.of is not family for part in parts):
        return ()
    return tuple(frozenset((part,)) for part in parts)
