"""Tensors that have a growing axis twice, as the symmetric weight `w + w.T` has: what carries them.

A flow does not say which axis of an operand becomes which of the output. So both axes of such a tensor hold the same;
where a node would fill them differently the growth is declined.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphgrow.errors import Declined
from graphgrow.ir import flow as fl
from graphgrow.ir.facts import NodeFacts, flatten_values
from graphgrow.ir.flow import Fill, Flow
from graphgrow.ir.terms import Space
from graphgrow.ir.value import Value
from graphgrow.planning.evaluate import children
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.requirements import Unmet


def check_form(facts: NodeFacts, space: Space) -> None:
    """Refuse what takes both axes of a tensor as one, counts over them, or lays a tensor with one axis beside them.

    Raises:
        Declined: with the node.
    """
    if not any(_is_double(value, space) and not value.parameter for value in facts.values()):
        return
    measured = [statistic.value for statistic in facts.statistics]
    measured += [norm.value for norm in facts.normalisations] + [noise.value for noise in facts.noises]
    measured += [storing.buffer for storing in facts.storings]
    outputs = {output: flow for output, flow in facts.flows if output.axes_with(space)}
    fits = all(_fits(flow, space) if _is_double(output, space) else _reads_one(flow, space)
               for output, flow in outputs.items())  # fmt: skip
    stated = all(value in outputs for value in flatten_values(facts.output) if _is_double(value, space))
    at_most = all(len(value.axes_with(space)) <= 2 for value in facts.values())
    if facts.node.op in ("get_attr", "output"):
        stated = fits = True
    if not (fits and stated and at_most) or any(_is_double(value, space) for value in measured):
        raise Declined(f"a tensor has this axis twice (at `{facts.module_path or facts.node.name}`)")


def check_fills(facts: NodeFacts, plan: Plan) -> None:
    """What the operands of a node hold whose output has the axis twice: one thing along both.

    Raises:
        Unmet: if they differ.
    """
    space = plan.units.space
    for output, flow in facts.flows:
        if not _is_double(output, space):
            continue
        for factors in _products(flow):
            read = [operand.value for factor in factors for operand in _operands(factor) if _has(operand, space)]
            states = {plan.state((value, axis)) for value in read for axis in value.axes_with(space)}
            whole = [o.value for f in factors for o in _operands(f) if _has_both(o, space)]
            zero = len(factors) > 1 and any(_vanishes(value, plan) for value in whole)
            if len(states) > 1 and not zero:
                wanted = Fill.ZERO if plan.kind is Kind.APPEND else Fill.COPY
                remedies = [
                    (value, axis, i, wanted)
                    for value in read
                    for axis in value.axes_with(space)
                    for i, fill in enumerate(plan.state((value, axis)))
                    if fill is not wanted
                ]
                raise Unmet(facts, "a tensor that has this axis twice would be filled differently along each", remedies)


def _is_double(value: Value, space: Space) -> bool:
    return len(value.axes_with(space)) > 1


def _vanishes(value: Value, plan: Plan) -> bool:
    return all(set(plan.state((value, axis))) == {Fill.ZERO} for axis in value.axes_with(plan.units.space))


def _has(operand: fl.Operand, space: Space) -> bool:
    return any(axis in operand.axes for axis in operand.value.axes_with(space))


def _has_both(operand: fl.Operand, space: Space) -> bool:
    return sum(axis in operand.axes for axis in operand.value.axes_with(space)) > 1


def _fits(flow: Flow, space: Space, within: bool = False) -> bool:
    """Whether an output with two axes comes from operands with both, or from a product of two that have one each."""
    if isinstance(flow, fl.Operand):
        return within or not _has(flow, space) or _has_both(flow, space)
    if isinstance(flow, (fl.Same, fl.Pick)):
        return _fits(flow.inner, space, within)
    if isinstance(flow, fl.Mul):
        return all(_fits(factor, space, within=isinstance(factor, fl.Operand)) for factor in flow.factors)
    return isinstance(flow, (fl.Add, fl.Choose, fl.Pointwise)) and all(_fits(term, space) for term in flow.terms)


def _reads_one(flow: Flow, space: Space) -> bool:
    """Whether no operand brings both of its axes to an output that has one."""
    return not any(_has_both(operand, space) for operand in _operands(flow))


def _operands(flow: Flow) -> Iterator[fl.Operand]:
    if isinstance(flow, fl.Operand):
        yield flow
    elif isinstance(flow, (fl.Same, fl.Slice, fl.Pick)):
        yield from _operands(flow.inner)
    elif isinstance(flow, (fl.Normalised, fl.Centred)):
        for inner in (flow.inner, flow.otherwise):
            yield from _operands(inner)
    elif isinstance(flow, fl.Along):
        for inner in (flow.along, flow.across):
            yield from _operands(inner)
    elif not isinstance(flow, fl.WITHOUT_OPERANDS):
        for child in children(flow):
            yield from _operands(child)


def _products(flow: Flow) -> Iterator[tuple[Flow, ...]]:
    """The factors of each product in an expression; what is in none as a product of one."""
    if isinstance(flow, fl.Mul):
        yield flow.factors
    elif isinstance(flow, (fl.Same, fl.Pick)):
        yield from _products(flow.inner)
    elif isinstance(flow, (fl.Add, fl.Choose, fl.Pointwise)):
        for term in flow.terms:
            yield from _products(term)
    elif isinstance(flow, fl.Operand):
        yield (flow,)
