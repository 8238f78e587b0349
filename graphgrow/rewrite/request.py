"""Asking flows backwards: which parameters must take which fill, so that a tensor takes the one wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphgrow.ir import flow as fl
from graphgrow.ir.cells import Cell, cells_of, groups
from graphgrow.ir.facts import NodeFacts
from graphgrow.ir.flow import Fill, Flow
from graphgrow.ir.terms import Space
from graphgrow.ir.value import Value
from graphgrow.rewrite.evaluate import Key, axis_of, children, count_at, holds, picked

Wish = tuple[Value, int, int, Fill]  # value, axis, occurrence, fill
Grants = Callable[[Value, int, int, Fill], bool]  # whether a parameter may take a fill


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


class Requests:
    """The fills that parameters were asked to take.

    Attributes:
        asked: by parameter and axis, the fill of each occurrence that was asked for.
    """

    def __init__(self, touching: list[NodeFacts], space: Space, grants: Grants | None = None) -> None:
        self._space = space
        self._grants = grants or (lambda *wish: True)
        self._flows = {output: flow for facts in touching for output, flow in facts.flows}
        self.asked: dict[Key, dict[int, Fill]] = {}
        self._granted: set[Wish] = set()

    def ask(self, value: Value, axis: int, occurrence: int, fill: Fill) -> set[Key]:
        """Ask a tensor to take a fill.

        Returns:
            The axes of parameters that now take another fill; none where no parameters can bring the wish about, or
            where they were asked already.
        """
        gathered: dict[Key, dict[int, Fill]] = {}
        pending: list[Wish] = [(value, axis, occurrence, fill)]
        seen: set[Wish] = set()
        while pending:
            wish = pending.pop()
            if wish in seen or wish in self._granted:  # what was granted leads to what is asked for already
                continue
            seen.add(wish)
            value, axis, occurrence, fill = wish
            if value.parameter:
                if not self._agrees(gathered, wish) or not self._grants(value, axis, occurrence, fill):
                    return set()
                gathered.setdefault((value, axis), {})[occurrence] = fill
                continue
            flow = self._flows.get(value)
            wishes = None if flow is None else self._wishes(flow, self._place(value, axis, occurrence), fill)
            if wishes is None:
                return set()
            pending.extend(wishes)
        self._granted |= seen
        changed: set[Key] = set()
        for key, wanted in gathered.items():
            present = self.asked.setdefault(key, {})
            if any(present.get(index) is not fill for index, fill in wanted.items()):
                changed.add(key)
            present.update(wanted)
        return changed

    def ask_operands(self, flow: Flow, fill: Fill) -> set[Key]:
        """Ask every operand of an expression that has the axis to take a fill, at all its occurrences; as `ask`."""
        changed: set[Key] = set()
        for operand in self._carriers(flow):
            for value, axis in dict.fromkeys(wish[:2] for wish in self._wishes(operand, _ANYWHERE, fill) or []):
                for occurrence in range(len(cells_of(value, axis, self._space))):
                    changed |= self.ask(value, axis, occurrence, fill)
        return changed

    def _place(self, value: Value, axis: int, occurrence: int) -> _Place:
        cells = cells_of(value, axis, self._space)
        together = groups(cells)[cells[occurrence]]
        return _Place(cells[occurrence], together.index(occurrence), len(together))

    def _of_operand(self, operand: fl.Operand, at: _Place, fill: Fill) -> list[Wish] | None:
        """The same occurrence of the operand; every one where a view folds parts of the axis together, or unfolds."""
        axis = axis_of(operand, self._space)
        if axis is None:
            return None
        found: list[Wish] = []
        for numbers in groups(cells_of(operand.value, axis, self._space), at.cell).values():
            if at.count in (None, len(numbers)):
                numbers = numbers[at.number : at.number + 1]
            found.extend((operand.value, axis, number, fill) for number in numbers)
        return found

    def _agrees(self, gathered: dict[Key, dict[int, Fill]], wish: Wish) -> bool:
        value, axis, occurrence, fill = wish
        return all(known.get((value, axis), {}).get(occurrence, fill) is fill for known in (gathered, self.asked))

    def _wishes(self, flow: Flow, at: _Place, fill: Fill) -> list[Wish] | None:
        """What the operands of an expression must be; None where they cannot bring the fill about."""
        if isinstance(flow, fl.Operand):
            return self._of_operand(flow, at, fill)
        if isinstance(flow, fl.Pick):
            return self._wishes(flow.inner, replace(at, cell=picked(flow, at.cell)), fill)
        if isinstance(flow, fl.Same):
            return self._wishes(flow.inner, at, fill)
        if isinstance(flow, fl.Along):
            chosen = flow.along if holds(flow.terms, self._space) else flow.across
            return self._wishes(chosen, at, fill)
        if isinstance(flow, fl.Normalised):
            if holds(flow.term, self._space):
                return [] if fill is Fill.ZERO else None
            return self._wishes(flow.otherwise, at, fill)
        if isinstance(flow, fl.Zeros):
            return [] if fill in (Fill.ZERO, Fill.MEAN) else None
        if isinstance(flow, fl.Centred):
            if holds(flow.term, self._space):
                return self._wishes(flow.inner, at, Fill.MEAN) if fill is Fill.ZERO else None
            return self._wishes(flow.otherwise, at, fill)
        if isinstance(flow, fl.Slice):
            before = count_at(flow.before, self._space, at.cell)
            return self._wishes(flow.inner, _Place(at.cell, at.number + before, None), fill)
        if isinstance(flow, fl.Stack):
            return self._stacked(flow, at, fill)
        if isinstance(flow, fl.Mul):
            return self._factor(flow, at, fill)
        if isinstance(flow, fl.Pointwise) and not (flow.zero and fill is Fill.ZERO):
            return None
        return self._all(flow, at, fill)

    def _carriers(self, flow: Flow) -> list[Flow]:
        return [term for term in children(flow) if self._carries(term)]

    def _carries(self, flow: Flow) -> bool:
        if isinstance(flow, fl.Operand):
            return axis_of(flow, self._space) is not None
        if isinstance(flow, (fl.Same, fl.Slice, fl.Pick, fl.Normalised, fl.Centred)):
            return self._carries(flow.inner)
        if isinstance(flow, fl.Along):
            return self._carries(flow.along if holds(flow.terms, self._space) else flow.across)
        return any(map(self._carries, children(flow)))

    def _all(self, flow: Flow, at: _Place, fill: Fill) -> list[Wish] | None:
        """Sums, choices and zero-keeping functions: every operand that has the axis."""
        carriers = self._carriers(flow)
        if fill is not Fill.MEAN and len(carriers) < len(children(flow)):
            return None
        gathered: list[Wish] = []
        for term in carriers:
            wishes = self._wishes(term, at, fill)
            if wishes is None:
                return None
            gathered.extend(wishes)
        return gathered

    def _factor(self, flow: fl.Mul, at: _Place, fill: Fill) -> list[Wish] | None:
        """Products: one factor is enough for zero and for shares, parameters first; a mean needs a single one."""
        carriers = self._carriers(flow)
        if fill is Fill.MEAN and len(carriers) != 1:
            return None
        own_first = sorted(carriers, key=lambda term: not (isinstance(term, fl.Operand) and term.value.parameter))
        for term in own_first:
            wishes = self._wishes(term, at, fill)
            if wishes is not None:
                return wishes
        return None

    def _stacked(self, flow: fl.Stack, at: _Place, fill: Fill) -> list[Wish] | None:
        number = at.number
        for term in flow.terms:
            assert isinstance(term, fl.Operand)
            axis = axis_of(term, self._space)
            count = 0 if axis is None else count_at((term.value.axes[axis],), self._space, at.cell)
            if number < count:
                return self._wishes(term, _Place(at.cell, number, None), fill)
            number -= count
        return None


_ANYWHERE = _Place(frozenset(), 0, None)
