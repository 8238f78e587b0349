"""Evaluating flow expressions: from the fill states of operands to that of an output."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphgrow.ir import flow as fl
from graphgrow.ir.flow import Fill, Flow, State
from graphgrow.ir.positions import occurrences
from graphgrow.ir.terms import Axes, Space, leaves
from graphgrow.ir.value import Value

Key = tuple[Value, int]


def holds(terms: Axes, space: Space) -> bool:
    """Whether one of the terms holds the space."""
    return any(leaf is space for term in terms for leaf in leaves(term))


def axis_of(operand: fl.Operand, space: Space) -> int | None:
    """The axis of an operand that carries the space to the output, if one does."""
    carrying = [axis for axis in operand.axes if holds((operand.value.axes[axis],), space)]
    return carrying[0] if carrying else None


def evaluate(flow: Flow, space: Space, fills: Mapping[Key, State], count: int) -> State:
    """The fill state of an output with `count` occurrences of the space.

    Raises:
        Clash: if the operator cannot carry the states of its operands.
    """
    if isinstance(flow, fl.Zeros):
        return (Fill.NULL,) * count
    state = _state(flow, space, fills)
    if state is None:
        return (Fill.EVEN,) * count
    return _spread(state, count)


def _state(flow: Flow, space: Space, fills: Mapping[Key, State]) -> State | None:
    """The state of an expression; None where it does not have the space at all."""
    if isinstance(flow, fl.Operand):
        axis = axis_of(flow, space)
        if axis is None:
            return None
        count = occurrences(flow.value.axes[axis], space)
        return fills.get((flow.value, axis), (Fill.EVEN,) * count)
    if isinstance(flow, fl.Same):
        return _state(flow.inner, space, fills)
    if isinstance(flow, fl.Normalised):
        return _normalised(flow, space, fills)
    if isinstance(flow, fl.Centred):
        return _centred(flow, space, fills)
    if isinstance(flow, fl.Along):
        return _state(flow.along if holds(flow.terms, space) else flow.across, space, fills)
    if isinstance(flow, fl.Slice):
        return _slice(flow, space, fills)
    if isinstance(flow, fl.Stack):
        states = [_state(term, space, fills) for term in flow.terms]
        return tuple(fill for state in states if state is not None for fill in state)
    operands = [_state(term, space, fills) for term in children(flow)]
    return _zip(operands, _combine(flow))


def children(flow: Flow) -> tuple[Flow, ...]:
    """The operands of an expression that combines several."""
    return flow.factors if isinstance(flow, fl.Mul) else flow.terms  # type: ignore[union-attr,return-value]


def _combine(flow: Flow) -> Callable[[list[Fill]], Fill]:
    if isinstance(flow, fl.Add):
        return fl.add_fills
    if isinstance(flow, fl.Mul):
        return fl.mul_fills
    if isinstance(flow, fl.Choose):
        return fl.choose_fills
    assert isinstance(flow, fl.Pointwise)
    return lambda fills: fl.pointwise_fills(fills, flow)


def _zip(operands: list[State | None], combine: Callable[[list[Fill]], Fill]) -> State | None:
    count = max((len(state) for state in operands if state is not None), default=0)
    if not count:
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


def _normalised(flow: fl.Normalised, space: Space, fills: Mapping[Key, State]) -> State | None:
    if not holds(flow.term, space):
        return _state(flow.otherwise, space, fills)
    state = _state(flow.inner, space, fills)
    if state is None:
        return None
    return tuple(fill if fill in (Fill.COPY, Fill.SHARE, Fill.NULL) else Fill.ZERO for fill in state)


_CENTRED = {Fill.MEAN: Fill.ZERO, Fill.NULL: Fill.NULL, Fill.COPY: Fill.COPY, Fill.EVEN: Fill.EVEN}


def _centred(flow: fl.Centred, space: Space, fills: Mapping[Key, State]) -> State | None:
    if not holds(flow.term, space):
        return _state(flow.otherwise, space, fills)
    state = _state(flow.inner, space, fills)
    if state is None:
        return None
    if Fill.SHARE in state:
        raise fl.Clash("shares minus their mean")
    return tuple(_CENTRED.get(fill, Fill.FREE) for fill in state)


def _slice(flow: fl.Slice, space: Space, fills: Mapping[Key, State]) -> State | None:
    state = _state(flow.inner, space, fills)
    if state is None:
        return None
    first = sum(occurrences(term, space) for term in flow.before)
    return state[first : first + occurrences(flow.part, space)]
