"""Evaluating flow expressions: from the fill states of operands to that of an output."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphgrow.ir import flow as fl
from graphgrow.ir.cells import Cell, agree, cells_along, cells_of, groups, regardless
from graphgrow.ir.flow import Fill, Flow, Held, Level, State
from graphgrow.ir.terms import Axes, Space, Term, find, normal, occurs
from graphgrow.ir.value import Value

Key = tuple[Value, int]


def holds(terms: Axes, space: Space) -> bool:
    """Whether one of the terms holds the space."""
    return any(occurs(space, term) for term in terms)


def is_whole(terms: Axes, space: Space) -> bool:
    """Whether the terms are the space and no more than one entry else: the mean of its units is that of all entries."""
    return [normal(term) for term in terms if term.size > 1 or normal(term) is space] == [space]


def axis_of(operand: fl.Operand, space: Space) -> int | None:
    """The axis of an operand that carries the space to the output, if one does."""
    return next((axis for axis in operand.axes if occurs(space, operand.value.axes[axis])), None)


def evaluate(
    flow: Flow,
    output: Value,
    axis: int,
    space: Space,
    fills: Mapping[Key, State],
    mixed: frozenset[Space] = frozenset(),
) -> State:
    """The fill state of an output along one of its axes.

    Args:
        flow: how it comes from the operands.
        output: the value.
        axis: one that has the space.
        space: what grows.
        fills: what the operands hold.
        mixed: the axes of positions that come together at the node, by what they were cut from.

    Raises:
        Clash: if the operator cannot carry the states of its operands.
    """
    term, cells = normal(output.axes[axis]), cells_of(output, axis, space)
    if isinstance(flow, (fl.Zeros, fl.Drawn)):
        return (Fill.NULL if isinstance(flow, fl.Zeros) else Fill.FREE,) * len(cells)
    found: dict[int, Held] = {}
    for cell, numbers in groups(cells).items():
        state = _state(flow, space, fills, regardless(cell, mixed))
        state = (Fill.EVEN,) * len(numbers) if state is None else _spread(state, len(numbers))
        found.update(zip(numbers, (_along(term, fill) for fill in state), strict=True))
    return tuple(found[number] for number in range(len(cells)))


def _along(term: Term, fill: Held) -> Held:
    """A fill along an axis: the common mean of another one is nothing in particular."""
    return Fill.FREE if isinstance(fill, fl.Common) and fill.term != term else fill


def _state(flow: Flow, space: Space, fills: Mapping[Key, State], at: Cell) -> State | None:
    """The state of an expression in one cell of the output; None where it does not have the space at all."""
    if isinstance(flow, fl.Operand):
        return _operand(flow, space, fills, at)
    if isinstance(flow, fl.Blank):
        return (Fill.NULL,) * count_at((flow.term,), space, at) or None
    if isinstance(flow, fl.Same):
        state = _state(flow.inner, space, fills, at)
        return state if flow.view else _moved(state)
    if isinstance(flow, fl.Pick):
        return _moved(_state(flow.inner, space, fills, picked(flow, at)))
    if isinstance(flow, fl.Normalised):
        return _normalised(flow, space, fills, at)
    if isinstance(flow, fl.Centred):
        return _centred(flow, space, fills, at)
    if isinstance(flow, fl.Along):
        return _state(flow.along if holds(flow.terms, space) else flow.across, space, fills, at)
    if isinstance(flow, fl.Slice):
        return _moved(_slice(flow, space, fills, at))
    if isinstance(flow, fl.Stack):
        states = [_moved(_state(term, space, fills, at)) for term in flow.terms]
        return tuple(fill for state in states if state is not None for fill in state)
    operands = [_moved(_state(term, space, fills, at)) for term in children(flow)]
    return _zip(operands, _combine(flow))


def _moved(state: State | None) -> State | None:
    """A state where entries change along any axis, or some are left out: their common mean is another then."""
    return None if state is None else tuple(Fill.FREE if isinstance(fill, Level) else fill for fill in state)


def picked(flow: fl.Pick, at: Cell) -> Cell:
    """The cell of what a position is picked from."""
    position = find(flow.position)
    return at | {position} if isinstance(position, Space) else at


def _operand(operand: fl.Operand, space: Space, fills: Mapping[Key, State], at: Cell) -> State | None:
    """What an operand holds in one cell of the output, which may leave open in which of the operand's it is."""
    axis = axis_of(operand, space)
    if axis is None:
        return None
    cells = cells_of(operand.value, axis, space)
    state = fills.get((operand.value, axis), (Fill.EVEN,) * len(cells))
    found = {tuple(state[number] for number in numbers) for numbers in groups(cells, at).values()}
    if len(found) > 1 and len(set().union(*found)) == 1:
        return max(found, key=len)
    if len(found) > 1:
        raise fl.Clash("positions of an axis that are filled differently come together")
    return found.pop() if found else ()


def children(flow: Flow) -> tuple[Flow, ...]:
    """The operands of an expression that combines several."""
    return flow.factors if isinstance(flow, fl.Mul) else flow.terms  # type: ignore[union-attr,return-value]


def _combine(flow: Flow) -> Callable[[list[Held]], Held]:
    if isinstance(flow, fl.Add):
        return fl.add_fills
    if isinstance(flow, fl.Mul):
        infinite = any(isinstance(factor, fl.Operand) and factor.value.infinite for factor in flow.factors)
        return _product_with_infinity if infinite else fl.mul_fills
    if isinstance(flow, fl.Choose):
        return fl.choose_fills
    assert isinstance(flow, fl.Pointwise)
    return lambda fills: fl.pointwise_fills(fills, flow)


def _product_with_infinity(fills: list[Held]) -> Held:
    """Minus infinity is the mask of a maximum: new units must not turn it into plus infinity, or by a zero into NaN."""
    carried = [fill for fill in fills if fill is not Fill.EVEN]
    if len(carried) > 1 and set(carried) != {Fill.COPY}:
        raise fl.Clash("a product with what may be infinite, as a mask leaves it")
    return fl.mul_fills(fills)


def _zip(operands: list[State | None], combine: Callable[[list[Held]], Held]) -> State | None:
    count = max((len(state) for state in operands if state is not None), default=0)
    if not count:
        if any(state is not None for state in operands):
            raise fl.Clash("positions of an axis that no operand has")
        return None
    rows = [_spread(state, count) if state is not None else (Fill.EVEN,) * count for state in operands]
    return tuple(combine([row[i] for row in rows]) for i in range(count))


def _spread(state: State, count: int) -> State:
    """A state over another number of occurrences: a view may fold several parts of an axis into one, or unfold it."""
    if len(state) == count:
        return state
    if len(set(state)) != 1:
        raise fl.Clash("parts of the axis that a view folds together are filled differently")
    return state[:1] * count


def _normalised(flow: fl.Normalised, space: Space, fills: Mapping[Key, State], at: Cell) -> State | None:
    if not holds(flow.term, space):
        return _state(flow.otherwise, space, fills, at)
    state = _state(flow.inner, space, fills, at)
    if state is None:
        return None
    if flow.affine and set(state) == {Fill.COPY}:
        return _zip([_state(term, space, fills, at) for term in flow.affine], _affine_of_copies)
    standard = tuple(fill if fill in (Fill.COPY, Fill.SHARE, Fill.NULL) else Fill.ZERO for fill in state)
    if flow.bias is None or set(standard) != {Fill.ZERO}:
        return standard
    return _state(flow.bias, space, fills, at)


def _affine_of_copies(fills: list[Held]) -> Held:
    """What copies times a weight, plus a bias, hold."""
    if set(fills) not in ({Fill.COPY}, {Fill.SHARE}):
        raise fl.Clash("a norm's weight and bias, of which one is shared and the other is not")
    return fills[0]


_CENTRED: dict[Held, Held] = {Fill.MEAN: Fill.ZERO, Fill.NULL: Fill.NULL, Fill.COPY: Fill.COPY, Fill.EVEN: Fill.EVEN}


def _centred(flow: fl.Centred, space: Space, fills: Mapping[Key, State], at: Cell) -> State | None:
    if not holds(flow.term, space):
        return _state(flow.otherwise, space, fills, at)
    state = _state(flow.inner, space, fills, at)
    if state is None:
        return None
    if Fill.SHARE in state:
        raise fl.Clash("shares minus their mean")
    carried = _CENTRED | ({} if is_whole(flow.term, space) else {Fill.MEAN: Fill.FREE})
    return tuple(carried.get(fill, Fill.FREE) for fill in state)


def _slice(flow: fl.Slice, space: Space, fills: Mapping[Key, State], at: Cell) -> State | None:
    state = _state(flow.inner, space, fills, at)
    if state is None:
        return None
    first = count_at(flow.before, space, at)
    return state[first : first + count_at((flow.part,), space, at)]


def count_at(terms: Axes, space: Space, at: Cell) -> int:
    """How often a space occurs in the parts of an axis, as far as they agree with a cell."""
    return sum(agree(cell, at) for term in terms for cell in cells_along(term, space))
