"""What the operators of a graph require of new units, held against a plan: sums, statistics, norms, products."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import Contraction, NodeFacts, Normalisation, NormKind, Statistic, flatten_values
from graphgrow.ir.flow import Clash, Common, Fill, Held, Level, Weighted
from graphgrow.ir.positions import axis_map, present_size
from graphgrow.ir.terms import Space, normal
from graphgrow.ir.value import Value
from graphgrow.planning.evaluate import Key, holds, is_whole
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.statistics import growing_axis, judge, old_share

Remedies = tuple[tuple[Value, int, int, Held], ...]  # any one of which could do: value, axis, occurrence, fill


class Unmet(Exception):
    """A requirement that does not hold, and the requests any one of which could mend it."""

    def __init__(
        self, facts: NodeFacts, text: str, remedies: Sequence[tuple[Value, int, int, Held]], clash: Clash | None = None
    ) -> None:
        super().__init__(text)
        self.facts, self.text, self.remedies, self.clash = facts, text, remedies, clash


def require(facts: NodeFacts, plan: Plan) -> None:
    """Sums and normalisations at one node."""
    space, append = plan.units.space, plan.kind is Kind.APPEND
    for summation in facts.summations:
        key = (summation.value, summation.axis)
        wanted = Fill.ZERO if append else Fill.SHARE
        for i, fill in enumerate(plan.state(key)):
            if fill not in (wanted, Fill.NULL):
                raise Unmet(facts, f"summed over with {fill.value} units", [(*key, i, wanted)])
    if not append and facts.node not in plan.train_alone and any(value.axes_with(space) for value in facts.draws):
        raise Unmet(facts, "random numbers are drawn for each copy apart", [])
    for statistic in facts.statistics:
        _require_statistic(facts, statistic, plan)
    for norm in facts.normalisations:
        if holds(norm.term, space):
            _require_normalisation(facts, norm, plan)


def _require_statistic(facts: NodeFacts, statistic: Statistic, plan: Plan) -> None:
    """Numbers taken of all units of an axis."""
    axis = growing_axis(statistic, plan.units.space)
    if axis is None:
        return
    verdict = judge(statistic, plan.units, plan.kind is Kind.APPEND, plan.fills)
    if verdict.factor is None:
        key = (statistic.value, axis)
        state = plan.state(key)
        remedies = [(*key, i, fill) for fill in verdict.wanted for i, now in enumerate(state) if now is not fill]
        seen = " and ".join(dict.fromkeys(fill.value for fill in state))
        raise Unmet(facts, f"the {statistic.kind.value} over the axis, whose new units are {seen}", remedies)
    plan.factors[statistic.output] = verdict.factor


def _require_normalisation(facts: NodeFacts, norm: Normalisation, plan: Plan) -> None:
    space = plan.units.space
    axis = next(i for i in norm.axes if holds((norm.value.axes[i],), space))
    state = plan.state((norm.value, axis))
    if plan.kind is Kind.REPLICATE:
        if not all(axis_map(term, plan.units).uniform for term in norm.term):
            raise Unmet(facts, f"{norm.kind.value} over the axis admits only splits of all units alike", [])
        own = {fill for value in (norm.weight, norm.bias) if value for fill in _fills_of(plan, value, space)}
        shared = own == {Fill.SHARE} and any(isinstance(f, fl.Normalised) and f.affine for _, f in facts.flows)
        if set(state) != {Fill.COPY} or not (shared or own <= {Fill.COPY}):
            raise Unmet(facts, f"{norm.kind.value} over units that are not whole copies", [])
        return
    if norm.kind is NormKind.GROUP:
        raise Unmet(facts, "group norm takes statistics over it: append whole groups instead", [])
    if norm.eps is None or (norm.weight is None and norm.output is None):
        raise Unmet(facts, f"{norm.kind.value} without a weight or an eps to correct", [])
    if norm.weight is None and norm.bias is not None:  # what is rescaled is the output, which has the bias in it
        raise Unmet(facts, f"{norm.kind.value} with a bias and no weight to correct", [])
    wanted = wanted_by(norm, space)
    for i, fill in enumerate(state):
        if fill not in wanted:
            text = f"{norm.kind.value} over the axis needs new units at {wanted[0].value}, but they are {fill.value}"
            if len(wanted) > 1 or isinstance(wanted[0], Level):
                text = f"{norm.kind.value} over an axis of which this is only a part"
            raise Unmet(facts, text, [(norm.value, axis, i, each) for each in wanted])
    if norm.weight is None and norm.output is not None:
        plan.factors[norm.output] = math.sqrt(old_share(norm, plan.units))
    if norm.bias is not None:
        at = next(iter(norm.bias.axes_with(space)))
        for i, fill in enumerate(plan.state((norm.bias, at))):
            if fill not in (Fill.ZERO, Fill.FREE):  # what comes out of the norm is the bias alone
                text = f"{norm.kind.value} with a bias that is {fill.value}"
                raise Unmet(facts, text, [(norm.bias, at, i, Fill.ZERO)])


def wanted_by(norm: Normalisation, space: Space) -> tuple[Held, ...]:
    """What new units of a space must hold, so that a norm over it puts out zero there: its own mean, or zero.

    Where the space is a part of one axis, that mean is asked for along the axis as it stands, or along those that views
    have made it of.
    """
    if norm.kind is not NormKind.LAYER:
        return (Fill.ZERO,)
    if is_whole(norm.term, space):
        return (Fill.MEAN,)
    longer = [normal(term) for term in norm.term if present_size(term) > 1 or holds((term,), space)]
    level = Level.over(norm.term)
    return (Common(longer[0]), level) if len(longer) == 1 else (level,)


def _fills_of(plan: Plan, value: Value, space: Space) -> set[Held]:
    return {fill for axis in value.axes_with(space) for fill in plan.state((value, axis))}


def rescaled(touching: list[NodeFacts], plan: Plan) -> list[Normalisation]:
    """The normalisations over appended units, whose scale and eps must change."""
    if plan.kind is Kind.REPLICATE:
        return []
    return [norm for facts in touching for norm in facts.normalisations if holds(norm.term, plan.units.space)]


def check_rescaled(touching: list[NodeFacts], plan: Plan) -> None:
    """The weight of a norm whose scale changes is a parameter that nothing else uses."""
    kinds = {norm.weight: norm.kind for norm in plan.rescaled}
    for facts in touching:
        if facts.node.op != "output" and not any(True for _ in flatten_values(facts.output)):
            continue  # its shape or dtype is read, and no number
        own = {norm.weight for norm in facts.normalisations if norm.weight and holds(norm.term, plan.units.space)}
        for value in (*facts.operands, *own):
            if value in kinds and not (value.parameter and value in own and facts.operands.count(value) == 1):
                text = f"the weight of a {kinds[value].value} that must be rescaled is used here too"
                raise Unmet(facts, text, [])


def changes_noise(facts: NodeFacts, plan: Plan) -> bool:
    """Whether noise falls apart on elements that depend on each other, so that train mode is another.

    Raises:
        Unmet: if they are in eval mode too.
    """
    space = plan.units.space
    changed = [
        noise
        for noise in facts.noises
        for axis in noise.value.axes_with(space)
        for fill in plan.state((noise.value, axis))
        if fill in (Fill.MEAN, Fill.COPY, Fill.SHARE) or isinstance(fill, (Weighted, Level, Common))
    ]
    if any(noise.always for noise in changed) and facts.node not in plan.train_alone:
        raise Unmet(facts, "its elements are dropped one by one in eval mode too, copies and shares apart", [])
    drawn = plan.kind is Kind.REPLICATE and any(value.axes_with(space) for value in facts.draws)
    return bool(changed) or drawn


def check_storings(facts: NodeFacts, plan: Plan) -> None:
    """What a buffer takes in must be what it holds, since it is read in the next call as it was in this one."""
    for storing in facts.storings:
        for axis in storing.buffer.axes_with(plan.units.space):
            held, taken = (storing.buffer, axis), (storing.value, axis)
            for i, (old, new) in enumerate(zip(plan.state(held), plan.state(taken), strict=True)):
                if new is not old and not (old is Fill.FREE and plan.kind is Kind.APPEND):
                    text = f"`{storing.buffer.name}` holds {old.value} units, and {new.value} ones are stored in it"
                    raise Unmet(facts, text, [(*held, i, new), (*taken, i, old)])


def check_contraction(facts: NodeFacts, c: Contraction, plan: Plan, read_afresh: bool, learns: bool) -> None:
    """Products over the axis: one side zero and not both, or shares against copies.

    Args:
        facts: of the node.
        c: its sum of products.
        plan: whose fills are held against it.
        read_afresh: whether fresh weights read the new units elsewhere, so that a tied table learns where it writes.
        learns: whether what is new must learn.
    """
    space = plan.units.space
    if not holds((c.term,), space):
        return
    left, right = (c.left, c.left_axis), (c.right, c.right_axis)
    states = plan.state(left), plan.state(right)
    for i, j in plan.meeting(facts, c):
        pair = states[0][i], states[1][j]
        if Fill.NULL in pair:
            continue
        if plan.kind is Kind.APPEND:
            if c.left.infinite or c.right.infinite:
                raise Unmet(facts, "a product with what may be infinite, as a mask leaves it", [])
            tied = any(_written_too(side, plan) for side in (left, right))
            if learns and pair == (Fill.ZERO, Fill.ZERO) and not (tied and read_afresh):
                moved = [(*left, i, Fill.FREE), (*right, j, Fill.FREE)]  # by the bias of a norm, if by anything
                raise Unmet(facts, "both sides of a product would be zero, and never learn", moved)
            if Fill.ZERO not in pair:
                remedies = [(*right, j, Fill.ZERO), (*left, i, Fill.ZERO)]
                raise Unmet(facts, "a product of two activations over the axis, neither of them zero", remedies)
        elif sorted(f.value for f in pair) != [Fill.COPY.value, Fill.SHARE.value]:
            sides = sorted([(*right, j), (*left, i)], key=lambda side: _written_too(side[:2], plan))
            remedies = [(*side, Fill.SHARE) for side in sides] if Fill.SHARE not in pair else []
            text = "a product over the axis counts copies twice" if remedies else "a product of two shares"
            raise Unmet(facts, text, remedies)


def _written_too(side: Key, plan: Plan) -> bool:
    """Whether a side of a product is a parameter that is also written by, as a table of embeddings tied to a head."""
    return side[0].parameter and side not in plan.readers
