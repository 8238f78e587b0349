"""Whether a gradient reaches new units that must be zero: a function that is flat at zero lets none through."""

from __future__ import annotations

from collections.abc import Iterator

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import NodeFacts, StatisticKind, flatten_values
from graphgrow.ir.flow import Fill, Flow
from graphgrow.planning.evaluate import Key, axis_of, children, holds
from graphgrow.planning.growth import Plan
from graphgrow.planning.requirements import Unmet


def check_slopes(touching: list[NodeFacts], plan: Plan) -> None:
    """No new entry that starts at zero stands only in front of what is flat there.

    Args:
        touching: the nodes that have the space, in their order.
        plan: whose fills all requirements hold for; what must be zero has the fill zero.

    Raises:
        Unmet: with the node that is flat.
    """
    chosen = {key for key, state in plan.fills.items() if key[0].parameter and _vanishes(plan, key)} - plan.readers
    if not chosen:
        return
    reached: set[Key] = set()
    stopped: dict[Key, NodeFacts] = {}
    for facts in reversed(touching):
        reached |= _ends(facts, plan)
        for key, flat in _measured(facts, plan):
            if flat:
                stopped.setdefault(key, facts)
        for output, flow in facts.flows:
            for axis in output.axes_with(plan.units.space):
                behind = (output, axis)
                for key, steep in _operands(flow, plan):
                    if behind in reached and steep:
                        reached.add(key)
                    elif behind in reached or behind in stopped:
                        stopped.setdefault(key, facts if behind in reached else stopped[behind])
    for key in chosen & stopped.keys() - reached:
        text = "new units must be zero in front of it, where its slope is zero, and would never learn"
        raise Unmet(stopped[key], text, [])


def _ends(facts: NodeFacts, plan: Plan) -> set[Key]:
    """What a node reads in other ways than unit by unit, or hands to the caller."""
    space = plan.units.space
    ends = {(s.value, s.axis) for s in facts.summations}
    ends |= {key for key, flat in _measured(facts, plan) if not flat}
    for c in facts.contractions:
        if holds((c.term,), space):
            ends |= {(c.left, c.left_axis), (c.right, c.right_axis)}
    if facts.node.op == "output":
        ends |= {(value, axis) for value in flatten_values(facts.output) for axis in value.axes_with(space)}
        ends |= {(value, axis) for value in facts.operands for axis in value.axes_with(space)}
    return ends


def _measured(facts: NodeFacts, plan: Plan) -> Iterator[tuple[Key, bool]]:
    """What statistics are taken of, and whether those are flat there: a norm of zeros stays what it is."""
    for statistic in facts.statistics:
        for axis in statistic.axes:
            if holds((statistic.value.axes[axis],), plan.units.space):
                key = (statistic.value, axis)
                yield key, statistic.kind in (StatisticKind.NORM, StatisticKind.SPECTRAL) and _vanishes(plan, key)


def _operands(flow: Flow, plan: Plan, steep: bool = True) -> Iterator[tuple[Key, bool]]:
    """The operands of a flow that have the space, and whether a change of their new units changes the output."""
    space = plan.units.space
    if isinstance(flow, fl.Operand):
        axis = axis_of(flow, space)
        if axis is not None:
            yield (flow.value, axis), steep
    elif isinstance(flow, (fl.Same, fl.Pick, fl.Slice)):
        yield from _operands(flow.inner, plan, steep)
    elif isinstance(flow, (fl.Normalised, fl.Centred)):
        yield from _operands(flow.inner if holds(flow.term, space) else flow.otherwise, plan, steep)
    elif isinstance(flow, fl.Along):
        yield from _operands(flow.along if holds(flow.terms, space) else flow.across, plan, steep)
    elif isinstance(flow, fl.Mul):
        for number, factor in enumerate(flow.factors):
            others = [other for at, other in enumerate(flow.factors) if at != number]
            yield from _operands(factor, plan, steep and not any(_is_zero(other, plan) for other in others))
    elif not isinstance(flow, fl.WITHOUT_OPERANDS):
        flat = isinstance(flow, fl.Pointwise) and flow.flat
        for term in children(flow):
            yield from _operands(term, plan, steep and not (flat and _is_zero(term, plan)))


def _is_zero(flow: Flow, plan: Plan) -> bool:
    """Whether all new units of an operand are zero."""
    keys = [key for key, _ in _operands(flow, plan)]
    return bool(keys) and all(_vanishes(plan, key) for key in keys)


def _vanishes(plan: Plan, key: Key) -> bool:
    return set(plan.state(key)) == {Fill.ZERO}
