"""Reading weights: zero where new units may hold anything, fresh where they are zero (else nothing would learn)."""

from __future__ import annotations

from graphgrow.ir.cells import cells_of
from graphgrow.ir.facts import Contraction, NodeFacts
from graphgrow.ir.flow import Fill, Held, State
from graphgrow.ir.positions import occurrences
from graphgrow.planning.evaluate import Key, holds
from graphgrow.planning.growth import Kind, Plan, Present


def settled_readers(touching: list[NodeFacts], plan: Plan) -> dict[Key, State]:
    """Reading weights: zero where what is read is not, fresh where it is zero (else nothing would ever learn)."""
    opened: dict[Key, State] = {}
    for facts in touching:
        for c in facts.contractions:
            sides = ((c.left, c.left_axis), (c.right, c.right_axis))
            for mine, other in (sides, sides[::-1]):
                if mine not in plan.readers or not holds((c.term,), plan.units.space):
                    continue
                seen = _seen(plan, mine, other, c)
                state = list(opened.get(mine, (Fill.NULL,) * len(cells_of(*mine, plan.units.space))))
                for pair in plan.meeting(facts, c):
                    own, theirs = pair if mine == sides[0] else pair[::-1]
                    state[own] = _of_two_readings(state[own], _reading(seen[theirs], plan.kind))
                opened[mine] = tuple(state)
    written = Fill.ZERO if plan.kind is Kind.APPEND else Fill.SHARE
    return {key: tuple(written if fill is Fill.NULL else fill for fill in state) for key, state in opened.items()}


def _reading(seen: Held, kind: Kind) -> Fill:
    """What a weight must be that reads units of this fill; null where it may be anything."""
    if seen is Fill.NULL:
        return Fill.NULL
    if kind is Kind.REPLICATE:
        return Fill.COPY if seen is Fill.SHARE else Fill.SHARE
    return Fill.FREE if seen is Fill.ZERO else Fill.ZERO


def _of_two_readings(first: Held, second: Held) -> Held:
    if Fill.NULL in (first, second):
        return second if first is Fill.NULL else first
    return first if first is second else Fill.ZERO


def present_readers(plan: Plan, present: Present) -> dict[Key, State]:
    """Reading weights as they are: zero, or anything."""
    found: dict[Key, State] = {}
    for value, axis in plan.readers:
        count = occurrences(value.axes[axis], plan.units.space)
        zeros = [present.shows(value, axis, occurrence, Fill.ZERO) for occurrence in range(count)]
        found[value, axis] = tuple(Fill.ZERO if zero else Fill.FREE for zero in zeros)
    return found


def _seen(plan: Plan, mine: Key, other: Key, c: Contraction) -> State:
    """What a reading weight reads; of two parameters that read each other, the left one is taken as written."""
    space = plan.units.space
    if other not in plan.readers:
        return plan.state(other)
    written = Fill.FREE if plan.kind is Kind.APPEND else Fill.COPY
    opposite = Fill.ZERO if plan.kind is Kind.APPEND else Fill.SHARE
    count = len(cells_of(*other, space))
    return (written if mine == (c.right, c.right_axis) else opposite,) * count


def reads_afresh(facts: NodeFacts, c: Contraction, plan: Plan) -> bool:
    """Whether fresh weights read new units that are zero, so that what writes those has a gradient."""
    if not holds((c.term,), plan.units.space):
        return False
    sides = ((c.left, c.left_axis), (c.right, c.right_axis))
    left, right = (plan.state(key) for key in sides)
    afresh = any({left[i], right[j]} == {Fill.ZERO, Fill.FREE} for i, j in plan.meeting(facts, c))
    return afresh and any(key in plan.readers for key in sides)
