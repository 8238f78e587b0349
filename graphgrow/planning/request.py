"""Asking flows backwards: which parameters must take which fill, so that a tensor takes the one wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from graphgrow.ir import flow as fl
from graphgrow.ir.cells import Cell, cells_of, groups, regardless
from graphgrow.ir.facts import NodeFacts
from graphgrow.ir.flow import Common, Fill, Flow, Held, Level, Weighted
from graphgrow.ir.positions import present_size
from graphgrow.ir.terms import Axes, Space, leaves, normal
from graphgrow.ir.value import Value
from graphgrow.planning.evaluate import Key, axis_of, children, count_at, holds, is_whole, picked

MOST_RETRIES = 32  # for one question; each may walk the graph once more

Wish = tuple[Value, int, int, Held]  # value, axis, occurrence, fill
Grants = Callable[[Value, int, int, Held], bool]  # whether a parameter may take a fill


@dataclass(frozen=True)
class _Place:
    """One occurrence within an expression.

    Attributes:
        cell: where it stands.
        number: which it is among those in that cell.
        count: how many there are; None where an operand must have just as many as the number says.
    """

    cell: Cell
    number: int
    count: int | None


@dataclass(frozen=True)
class _Either:
    """Lists of wishes any one of which would do, the likeliest first."""

    alternatives: tuple[Wishes, ...]


Wishes = list[Wish | _Either]


class _Walk:
    """One question under search, and how far it had come at each choice that was left open."""

    def __init__(self, first: Wish) -> None:
        self.pending: Wishes = [first]
        self.seen: dict[Wish, None] = {}
        self.gathered: dict[tuple[Key, int], Held] = {}
        self._choices: list[tuple[Wishes, int, int, list[Wishes]]] = []
        self._retries = MOST_RETRIES

    def choose(self, either: _Either) -> None:
        """Go on with the first alternative, and remember the others."""
        first, *others = either.alternatives
        if others:
            self._choices.append((list(self.pending), len(self.seen), len(self.gathered), others))
        self.pending.extend(first)

    def retry(self) -> bool:
        """Go back to the last choice and take its next alternative; whether there was one."""
        if not self._choices or not self._retries:
            return False
        self._retries -= 1
        pending, seen, gathered, others = self._choices.pop()
        for known, count in ((self.seen, seen), (self.gathered, gathered)):
            while len(known) > count:
                known.popitem()
        self.pending = list(pending)
        self.choose(_Either(tuple(others)))
        return True


class Requests:
    """The fills that parameters were asked to take.

    Attributes:
        asked: by parameter and axis, the fill of each occurrence that was asked for.
    """

    def __init__(self, touching: list[NodeFacts], space: Space, grants: Grants | None = None) -> None:
        self._space = space
        self._grants = grants or (lambda *wish: True)
        self._flows = {output: flow for facts in touching for output, flow in facts.flows}
        self._mixed = {output: facts.mixed for facts in touching if facts.mixed for output, _ in facts.flows}
        self._stored = {storing.buffer for facts in touching for storing in facts.storings}
        self.asked: dict[Key, dict[int, Held]] = {}
        self._granted: set[Wish] = set()

    def ask(self, value: Value, axis: int, occurrence: int, fill: Held) -> set[Key]:
        """Ask a tensor to take a fill.

        Returns:
            The axes of parameters that now take another fill; none where no parameters can bring the wish about, or
            where they were asked already.
        """
        search = _Walk((value, axis, occurrence, fill))
        while search.pending:
            wish = search.pending.pop()
            if isinstance(wish, _Either):
                search.choose(wish)
            elif not self._follow(wish, search) and not search.retry():
                return set()
        self._granted.update(search.seen)
        changed: set[Key] = set()
        for (key, index), wanted in search.gathered.items():
            present = self.asked.setdefault(key, {})
            if present.get(index) != wanted:
                changed.add(key)
            present[index] = wanted
        return changed

    def _follow(self, wish: Wish, search: _Walk) -> bool:
        """Note what a parameter must be, or what the operands of a tensor must be; False where that cannot be."""
        if wish in search.seen or wish in self._granted:  # what was granted leads to what is asked for already
            return True
        search.seen[wish] = None
        value, axis, occurrence, fill = wish
        if not value.parameter:
            flow = self._flows.get(value)
            wishes = None if flow is None else self._wishes(flow, self._place(value, axis, occurrence), fill)
            search.pending.extend(wishes or ())
            return wishes is not None
        known = search.gathered.get(
            ((value, axis), occurrence), self.asked.get((value, axis), {}).get(occurrence, fill)
        )
        if known != fill or not self._grants(value, axis, occurrence, fill):
            return False
        if isinstance(fill, Level) and along(value, fill) is None:
            return False
        search.gathered[(value, axis), occurrence] = fill
        return True

    def ask_operands(self, flow: Flow, fill: Held) -> set[Key]:
        """Ask every operand of an expression that has the axis to take a fill, at all its occurrences; as `ask`."""
        changed: set[Key] = set()
        for operand in self._carriers(flow):
            likeliest = _likeliest(self._wishes(operand, _ANYWHERE, fill) or [])
            for value, axis in dict.fromkeys(wish[:2] for wish in likeliest):
                for occurrence in range(len(cells_of(value, axis, self._space))):
                    changed |= self.ask(value, axis, occurrence, fill)
        return changed

    def is_constant(self, flow: Flow) -> bool:
        """Whether the space comes into an expression by what is computed from parameters alone."""
        if isinstance(flow, fl.Operand):
            return axis_of(flow, self._space) is None or (flow.value.constant and flow.value not in self._stored)
        return all(map(self.is_constant, _parts(flow)))

    def _place(self, value: Value, axis: int, occurrence: int) -> _Place:
        cells = cells_of(value, axis, self._space)
        together = groups(cells)[cells[occurrence]]
        place = regardless(cells[occurrence], self._mixed.get(value, frozenset()))
        return _Place(place, together.index(occurrence), len(together))

    def _of_operand(self, operand: fl.Operand, at: _Place, fill: Held) -> Wishes | None:
        """The same occurrence of the operand; every one where a view folds parts of the axis together, or unfolds."""
        axes = [axis for axis in operand.value.axes_with(self._space) if axis in operand.axes]
        if not axes or (isinstance(fill, Common) and normal(operand.value.axes[axes[0]]) != fill.term):
            return None
        found: Wishes = []
        for axis in axes:  # of a tensor that has it twice, both
            for numbers in groups(cells_of(operand.value, axis, self._space), at.cell).values():
                if at.count in (None, len(numbers)):
                    numbers = numbers[at.number : at.number + 1]
                found.extend((operand.value, axis, number, fill) for number in numbers)
        return found

    def _wishes(self, flow: Flow, at: _Place, fill: Held) -> Wishes | None:
        """What the operands of an expression must be; None where they cannot bring the fill about."""
        if isinstance(flow, fl.Operand):
            return self._of_operand(flow, at, fill)
        if isinstance(fill, Level) and not (isinstance(flow, fl.Same) and flow.view):
            return None
        if isinstance(fill, Common) and isinstance(flow, (fl.Slice, fl.Stack, fl.Pick)):
            return None
        if isinstance(flow, fl.Pick):
            return self._wishes(flow.inner, replace(at, cell=picked(flow, at.cell)), fill)
        if isinstance(flow, fl.Same):
            return self._wishes(flow.inner, at, fill)
        if isinstance(flow, fl.Along):
            chosen = flow.along if holds(flow.terms, self._space) else flow.across
            return self._wishes(chosen, at, fill)
        if isinstance(flow, fl.Normalised):
            if not holds(flow.term, self._space):
                return self._wishes(flow.otherwise, at, fill)
            if fill is Fill.SHARE:
                return self._every(flow.affine, at, fill) or None
            if fill in (Fill.ZERO, Fill.FREE) and flow.bias is not None:
                return self._wishes(flow.bias, at, fill)
            return [] if fill is Fill.ZERO else None
        if isinstance(flow, (fl.Zeros, fl.Blank)):
            return [] if fill in (Fill.ZERO, Fill.MEAN, Fill.REPEAT) else None
        if isinstance(flow, fl.Drawn):
            return None
        if isinstance(flow, fl.Centred):
            if holds(flow.term, self._space):
                possible = fill is Fill.ZERO and is_whole(flow.term, self._space)
                return self._wishes(flow.inner, at, Fill.MEAN) if possible else None
            return self._wishes(flow.otherwise, at, fill)
        if isinstance(flow, fl.Slice):
            before = count_at(flow.before, self._space, at.cell)
            return self._wishes(flow.inner, _Place(at.cell, at.number + before, None), fill)
        if isinstance(flow, fl.Stack):
            return self._stacked(flow, at, fill)
        if isinstance(flow, fl.Mul):
            return self._factor(flow, at, fill)
        if isinstance(flow, fl.Pointwise) and fill is not Fill.REPEAT and not (flow.zero and fill is Fill.ZERO):
            return None
        return self._all(flow, at, fill)

    @functools.cached_property
    def _even(self) -> frozenset[Value]:
        """Values with the axis that hold one number for all of its units: what was expanded along it."""
        even: set[Value] = set()
        for output, flow in self._flows.items():  # in the order of the graph
            if not isinstance(flow, fl.WITHOUT_OPERANDS) and not self._has(flow, even):
                even.add(output)
        return frozenset(even)

    def _carriers(self, flow: Flow) -> list[Flow]:
        carriers = [term for term in children(flow) if self._has(term)]
        return carriers if len(carriers) < 2 else [term for term in carriers if self._has(term, self._even)]

    def _has(self, flow: Flow, even: Collection[Value] = ()) -> bool:
        """Whether the space comes to the output by an expression, but for values that are even along it."""
        if isinstance(flow, fl.Operand):
            return axis_of(flow, self._space) is not None and flow.value not in even
        if isinstance(flow, fl.Blank):
            return holds((flow.term,), self._space)
        if isinstance(flow, (fl.Same, fl.Slice, fl.Pick, fl.Normalised, fl.Centred)):
            return self._has(flow.inner, even)
        if isinstance(flow, fl.Along):
            return self._has(flow.along if holds(flow.terms, self._space) else flow.across, even)
        return any(self._has(child, even) for child in children(flow))

    def _all(self, flow: Flow, at: _Place, fill: Held) -> Wishes | None:
        """Sums, choices and zero-keeping functions: every operand that has the axis."""
        carriers = self._carriers(flow)
        moves_along = fill in (Fill.MEAN, Fill.REPEAT) or isinstance(fill, Common)
        if not moves_along and len(carriers) < len(children(flow)):  # what all units share is no zero
            return None
        return self._every(carriers, at, fill)

    def _every(self, terms: Sequence[Flow], at: _Place, fill: Held) -> Wishes | None:
        gathered: Wishes = []
        for term in terms:
            wishes = self._wishes(term, at, fill)
            if wishes is None:
                return None
            gathered.extend(wishes)
        return gathered

    def _factor(self, flow: fl.Mul, at: _Place, fill: Held) -> Wishes | None:
        """Products: one factor is enough for zero and for shares, the likeliest first; a mean needs a single one."""
        carriers = self._carriers(flow)
        if fill is Fill.REPEAT:
            return self._every(carriers, at, fill)
        if fill is Fill.MEAN or isinstance(fill, (Weighted, Common)):
            return self._scaled(carriers, at, fill)
        wishes = [
            found
            for term in sorted(carriers, key=self._unlikely)
            if (found := self._wishes(term, at, fill)) is not None
        ]
        return [_Either(tuple(wishes))] if len(wishes) > 1 else next(iter(wishes), None)

    def _unlikely(self, factor: Flow) -> tuple[int, bool]:
        """Parameters first, buffers last, which would stay at zero for ever; what is flat at zero after what learns."""
        if not isinstance(factor, fl.Operand):
            return 1, False
        made = self._flows.get(factor.value)
        flat = isinstance(made, fl.Pointwise) and made.flat
        return (2 if factor.value.buffer else int(not factor.value.parameter)), flat

    def _scaled(self, carriers: list[Flow], at: _Place, fill: Held) -> Wishes | None:
        """A mean of products: of a single factor, or weighted by a scale with one number for each unit."""
        if len(carriers) == 1:
            return self._wishes(carriers[0], at, fill)
        scales = [term for term in carriers if self._is_scale(term)]
        if fill is not Fill.MEAN or len(carriers) != 2 or len(scales) != 1:
            return None
        scale, other = scales[0], carriers[carriers[0] is scales[0]]
        assert isinstance(scale, fl.Operand)
        mine = self._wishes(scale, at, Weighted(scale.value, scale=True))
        theirs = self._wishes(other, at, Weighted(scale.value))
        return None if mine is None or theirs is None else [*mine, *theirs]

    def _is_scale(self, term: Flow) -> bool:
        """Whether a factor is a real parameter whose only axis, but for those of size 1, is the space."""
        if not isinstance(term, fl.Operand) or not term.value.parameter or term.value.buffer or term.value.complex:
            return False
        return all(present_size(axis) == 1 or normal(axis) is self._space for axis in term.value.axes)

    def _part(self, term: Flow) -> Axes:
        """What part of a stacked axis a term stands for, where it has the space."""
        if isinstance(term, fl.Blank):
            return (term.term,)
        assert isinstance(term, fl.Operand)
        axis = axis_of(term, self._space)
        return () if axis is None else (term.value.axes[axis],)

    def _stacked(self, flow: fl.Stack, at: _Place, fill: Held) -> Wishes | None:
        number = at.number
        for term in flow.terms:
            count = count_at(self._part(term), self._space, at.cell)
            if number < count:
                return self._wishes(term, _Place(at.cell, number, None), fill)
            number -= count
        return None


def along(value: Value, level: Level) -> tuple[int, ...] | None:
    """The axes of a tensor that together are those of a common mean; None where they are not whole axes of it."""
    made = [{leaf for leaf in leaves(term) if leaf.size > 1} for term in value.axes]
    chosen = tuple(axis for axis, spaces in enumerate(made) if spaces and spaces <= level.spaces)
    return chosen if set().union(*(made[axis] for axis in chosen)) == level.spaces else None


def _parts(flow: Flow) -> tuple[Flow, ...]:
    if isinstance(flow, fl.WITHOUT_OPERANDS):
        return ()
    if isinstance(flow, (fl.Normalised, fl.Centred)):
        return flow.inner, flow.otherwise
    if isinstance(flow, fl.Along):
        return flow.along, flow.across
    return (flow.inner,) if isinstance(flow, (fl.Same, fl.Slice, fl.Pick)) else children(flow)


def _likeliest(wishes: Wishes) -> Iterator[Wish]:
    for wish in wishes:
        if isinstance(wish, _Either):
            yield from _likeliest(wish.alternatives[0])
        else:
            yield wish


_ANYWHERE = _Place(frozenset(), 0, None)
