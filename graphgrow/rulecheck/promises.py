"""The facts of a rule read as promises: which fills of the parameters they admit, and what is rescaled for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from graphgrow.ir.cells import cells_of, meeting
from graphgrow.ir.facts import NodeFacts, NormKind
from graphgrow.ir.flow import Fill, Held
from graphgrow.ir.positions import Units, axis_map, occurrences
from graphgrow.ir.terms import Product, Space, Term, normal, occurs
from graphgrow.ir.value import Value
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.requirements import wanted_by
from graphgrow.planning.statistics import growing_axis, judge


def promised(facts: NodeFacts, plan: Plan) -> bool:
    """Whether a node's requirements hold; normalisations that must be rescaled are noted in the plan."""
    space, append = plan.units.space, plan.kind is Kind.APPEND

    def states(value: Value | None, axis: int) -> set[Held]:
        return set() if value is None else set(plan.fills.get((value, axis), ()))

    for summation in facts.summations:
        if not states(summation.value, summation.axis) <= {Fill.ZERO if append else Fill.SHARE, Fill.NULL}:
            return False
    if not append and any(value.axes_with(space) for value in facts.draws):
        return False
    doubled = Units(space, torch.arange(space.size).repeat(2))
    for statistic in facts.statistics:
        grows = growing_axis(statistic, space) is not None
        if grows and judge(statistic, doubled, append, plan.fills).factor is None:
            return False
    for c in facts.contractions:
        if not occurrences(c.term, space):
            continue
        sides = ((c.left, c.left_axis), (c.right, c.right_axis))
        left, right = (plan.fills.get(key, ()) for key in sides)
        cells = [cells_of(*key, space) for key in sides]
        for i, j in meeting(cells[0], cells[1], facts.unaligned):
            a, b = left[i], right[j]
            if Fill.NULL not in (a, b) and not (Fill.ZERO in (a, b) if append else {a, b} == {Fill.COPY, Fill.SHARE}):
                return False
    for norm in facts.normalisations:
        if not normalised_over(norm, space):
            continue
        own = [state for value in (norm.weight, norm.bias) if value for state in [_parameter_states(plan, value)]]
        axis = next(i for i in norm.axes if occurrences(norm.value.axes[i], space))
        if not append:
            if not all(axis_map(term, doubled).uniform for term in norm.term):
                return False  # not even copies of all units are copies of all positions
            if states(norm.value, axis) != {Fill.COPY} or not set().union(*own) <= {Fill.COPY}:
                return False
            continue
        mended = norm.eps is not None and (norm.weight is not None or (norm.output is not None and norm.bias is None))
        met = any(states(norm.value, axis) == {wanted} for wanted in wanted_by(norm, space))
        if norm.kind is NormKind.GROUP or not mended or not met:
            return False
        if norm.bias is not None and _parameter_states(plan, norm.bias) not in ({Fill.ZERO}, {Fill.FREE}):
            return False
        plan.rescaled.append(norm)
    return True


def factors_of(until: Sequence[NodeFacts], plan: Plan) -> dict[Value, float]:
    """What the outputs of statistics must be multiplied by, at the plan's own number of units."""
    append = plan.kind is Kind.APPEND
    factors: dict[Value, float] = {}
    for facts in until:
        for statistic in facts.statistics:
            if growing_axis(statistic, plan.units.space) is not None:
                factor = judge(statistic, plan.units, append, plan.fills).factor
                assert factor is not None
                factors[statistic.output] = factor
        for norm in facts.normalisations:
            if append and norm.weight is None and norm.output and normalised_over(norm, plan.units.space):
                factors[norm.output] = math.sqrt(_seen_before(norm, plan.units))
    return factors


def _seen_before(norm: Any, units: Units) -> float:
    """The share of old positions among all that a norm sees, by laying out its axes."""
    return math.prod(len(m.kept) / len(m.source) for m in (axis_map(term, units) for term in norm.term))


def _parameter_states(plan: Plan, value: Value) -> set[Held]:
    return {fill for axis in value.axes_with(plan.units.space) for fill in plan.fills[(value, axis)]}


def normalised_over(norm: Any, space: Space) -> bool:
    """Whether a normalisation takes its statistics over the space."""
    return any(occurs(space, term) for term in norm.term)


def squared(term: Term, space: Space) -> bool:
    """Whether the term holds a product of the space with itself."""
    term = normal(term)
    if isinstance(term, Space):
        return False
    children = term.factors if isinstance(term, Product) else term.parts
    holding = [child for child in children if occurrences(child, space)]
    return (isinstance(term, Product) and len(holding) > 1) or any(squared(child, space) for child in holding)
