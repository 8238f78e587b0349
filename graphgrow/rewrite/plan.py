"""Planning growth: which fill state each tensor takes, so that the whole is exact.

Parameters are the sources: the fill of their new entries is chosen, everything else follows by the flows. The
planner starts with free rows (or copies), finds the first requirement that is not met, asks the flow backwards
which sources must change, and evaluates again from the first of them on. Only an evaluation in which every
requirement holds is accepted, so an error of the search can lose a growth but never an exactness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from torch import fx

from graphgrow.errors import Declined
from graphgrow.ir.cells import cells_of, meeting
from graphgrow.ir.editor import argument_at
from graphgrow.ir.facts import Contraction, Extent, NodeFacts, Normalisation, NormKind, Statistic, flatten_values
from graphgrow.ir.flow import Clash, Fill, Held, State, Weighted
from graphgrow.ir.positions import Units, axis_map, occurrences
from graphgrow.ir.terms import Axes, Product, Space, Term, children, normal
from graphgrow.ir.value import Value
from graphgrow.ops.analysis import Analysis
from graphgrow.rewrite.evaluate import Key, evaluate, holds
from graphgrow.rewrite.request import Requests
from graphgrow.rewrite.statistics import growing_axis, judge, old_share


class Kind(Enum):
    """The two forms of growth."""

    APPEND = "append"
    REPLICATE = "replicate"


@dataclass
class Plan:
    """An exact growth of one space.

    Attributes:
        units: which units there will be.
        kind: append or replicate.
        fills: for each value and axis that holds the space, the fill state of each occurrence.
        readers: the axes of parameters along which the space is read and nothing else.
        exact_in: the modes in which the growth is exact.
        rescaled: normalisations whose scale and eps must change, by how many more units they see.
        factors: by value, what a statistic over the axis must be multiplied by to be what it was.
    """

    units: Units
    kind: Kind
    fills: dict[Key, State] = field(default_factory=dict)
    readers: set[Key] = field(default_factory=set)
    exact_in: frozenset[str] = frozenset({"eval", "train"})
    rescaled: list[Normalisation] = field(default_factory=list)
    factors: dict[Value, float] = field(default_factory=dict)


class _Unmet(Exception):
    """A requirement that does not hold, and the requests any one of which could mend it."""

    def __init__(
        self, facts: NodeFacts, text: str, remedies: Sequence[tuple[Value, int, int, Held]], clash: Clash | None = None
    ) -> None:
        super().__init__(text)
        self.facts, self.text, self.remedies, self.clash = facts, text, remedies, clash


class Present(Protocol):
    """The units that a removal takes away, as they are now."""

    def shows(self, value: Value, axis: int, occurrence: int, fill: Held) -> bool:
        """Whether the entries of a parameter at those units are what growth with that fill would have made."""


def plan_growth(analysis: Analysis, units: Units, kind: Kind, present: Present | None = None) -> Plan:
    """Find fill states with which growing the space is exact.

    With `present` the question is the dual one: whether units that are there already could have been appended
    exactly, and so may be taken away. A parameter then takes only fills that its numbers show.

    Raises:
        Declined: if there are none, with the node and the reason.
    """
    space = units.space
    if space.frozen is not None:
        raise Declined(f"the axis is frozen: {space.frozen}")
    touching = analysis.touching(space)
    for facts in touching:
        _check_shape(facts, space)
        _check_sizes(analysis, facts, space)
    search = _Search(Plan(units, kind), touching, present)
    start = 0
    for _ in range(4 * len(touching) + 4):
        try:
            search.evaluate(start)
            return search.plan
        except _Unmet as unmet:
            start = search.mend(unmet)
    raise Declined("no fill states were found that satisfy every operator")


class _Search:
    """The plan under search. Each round evaluates only what follows the parameters that the last request changed."""

    def __init__(self, plan: Plan, touching: list[NodeFacts], present: Present | None) -> None:
        self.plan = plan
        self._touching = touching
        self._present = present
        self._requests = Requests(touching, plan.units.space, None if present is None else present.shows)
        self._start = Fill.FREE if plan.kind is Kind.APPEND else Fill.COPY
        self._settled: set[Key] = set()  # reading axes whose fills were derived by the last evaluation
        self._first_use: dict[Value, int] = {}
        lifted = _lifted_axes(touching, plan.units.space)
        for facts in touching:
            if facts.node.op == "placeholder":
                self._add_input(facts)
        for number, facts in enumerate(touching):
            for value in facts.values():
                if value.parameter and value not in self._first_use:
                    self._first_use[value] = number
                    self._add_source(value, lifted)

    def _add_input(self, facts: NodeFacts) -> None:
        """New units of an input hold whatever the caller gives."""
        if self.plan.kind is not Kind.APPEND:
            raise Declined(f"`{facts.node.name}` is an input, whose units are the caller's")
        for value in flatten_values(facts.output):
            for axis in value.axes_with(self.plan.units.space):
                self._choose((value, axis), {})

    def _add_source(self, value: Value, lifted: set[Key]) -> None:
        for axis in value.axes_with(self.plan.units.space):
            if (value, axis) in lifted:
                self._choose((value, axis), {})
            else:
                self.plan.readers.add((value, axis))

    def _choose(self, key: Key, wanted: Mapping[int, Held]) -> None:
        """Set the fills of a source: those wanted, else what all sources start with."""
        count = len(cells_of(*key, self.plan.units.space))
        self.plan.fills[key] = tuple(wanted.get(i, self._start) for i in range(count))

    def evaluate(self, start: int) -> None:
        """Evaluate the nodes from a position on, and check that every requirement holds.

        Raises:
            _Unmet: at the first one that does not.
        """
        for number in range(start, len(self._touching)):
            self._carry(self._touching[number])
            _require(self._touching[number], self.plan)
        self.plan.rescaled = _rescaled(self._touching, self.plan)
        _check_rescaled(self._touching, self.plan)
        if self._present is None:
            settled = _settled_readers(self._touching, self.plan)
        else:
            settled = _present_readers(self.plan, self._present)
        self._settled = set(settled)
        self.plan.fills.update(settled)
        contractions = [(facts, contraction) for facts in self._touching for contraction in facts.contractions]
        read_afresh = any(_reads_afresh(contraction, self.plan) for _, contraction in contractions)
        learns = self._present is None  # what is taken away need not
        for facts, contraction in contractions:
            _check_contraction(facts, contraction, self.plan, read_afresh, learns)
        if any(_changes_noise(facts, self.plan) for facts in self._touching):
            self.plan.exact_in -= {"train"}

    def _carry(self, facts: NodeFacts) -> None:
        """The fills of a node's outputs, from those of its operands."""
        space = self.plan.units.space
        for output, flow in facts.flows:
            for axis in output.axes_with(space):
                try:
                    self.plan.fills[(output, axis)] = evaluate(flow, output, axis, space, self.plan.fills)
                except Clash as clash:
                    raise _Unmet(facts, str(clash), [], clash) from None

    def mend(self, unmet: _Unmet) -> int:
        """Change the sources so that a requirement may hold; from where on to evaluate again.

        Raises:
            Declined: if no change can bring that about.
        """
        changed = next(filter(None, (self._requests.ask(*remedy) for remedy in unmet.remedies)), None)
        if unmet.clash is not None and unmet.clash.at is not None and unmet.clash.wanted is not None:
            changed = self._requests.ask_operands(unmet.clash.at, unmet.clash.wanted)
        if not changed:
            raise _declined(unmet) from None
        for key in self._settled:
            del self.plan.fills[key]
        self._settled = set()
        keys = sorted(changed, key=lambda key: self._first_use[key[0]])
        for key in keys:
            self.plan.readers.discard(key)
            self._choose(key, self._requests.asked[key])
            value, axis = key
            means = any(fill is Fill.MEAN or isinstance(fill, Weighted) for fill in self.plan.fills[key])
            if means and normal(value.axes[axis]) is not self.plan.units.space:
                facts = self._touching[self._first_use[value]]
                raise _declined(_Unmet(facts, "new units at the mean along a part of an axis", [])) from None
        return self._first_use[keys[0][0]]


def _declined(unmet: _Unmet) -> Declined:
    return Declined(f"{unmet.text} (at `{unmet.facts.module_path or unmet.facts.node.name}`)")


def _check_shape(facts: NodeFacts, space: Space) -> None:
    """Forms that the calculus does not cover: a tensor with the space on two axes, or squared in one."""
    site = facts.module_path or facts.node.name
    for value in facts.values():
        axes = value.axes_with(space)
        if len(axes) > 1 and not value.parameter:
            raise Declined(f"a tensor has this axis twice (at `{site}`)")
        if any(_squared(value.axes[axis], space) for axis in axes):
            raise Declined(f"an axis is a product of this axis with itself (at `{site}`)")


def _check_sizes(analysis: Analysis, facts: NodeFacts, space: Space) -> None:
    """Sizes that another node computes as a whole: each must follow the axis by itself, for it cannot be restated."""
    for size in facts.sizes:
        if size.slot.on_module or not any(occurrences(term, space) for term in size.terms):
            continue
        source = argument_at(facts.node, size.slot.path)
        known = analysis.facts[source].output if isinstance(source, fx.Node) else None
        if not isinstance(known, tuple):
            continue
        parts = known if size.as_tuple else (known[size.slot.path[-1]],)
        pairs = zip(parts, [(term,) for term in size.terms] if size.as_tuple else [size.terms], strict=True)
        if not all(_follows(part, terms) for part, terms in pairs):
            site = facts.module_path or facts.node.name
            raise Declined(f"the sizes of `{site}` are computed as a whole by `{source}` and cannot follow")


def _follows(part: Any, terms: Axes) -> bool:
    """Whether a part of a computed tuple of sizes has these terms' size whatever grows; -1 is what torch finds out."""
    if isinstance(part, Extent):
        return [normal(term) for term in part.terms] == [normal(term) for term in terms]
    return bool(part == -1)


def _squared(term: Term, space: Space) -> bool:
    term = normal(term)
    if isinstance(term, Space):
        return False
    holding = [child for child in children(term) if occurrences(child, space)]
    if isinstance(term, Product) and len(holding) > 1:
        return True
    return any(_squared(child, space) for child in holding)


def _lifted_axes(touching: list[NodeFacts], space: Space) -> set[Key]:
    """The axes of parameters that flow into outputs; a bare parameter flows wherever its node is used."""
    lifted: set[Key] = set()
    contracted: set[Key] = set()
    for facts in touching:
        contracted |= _contracted(facts, space)
    for facts in touching:
        dropped = _contracted(facts, space)
        for value in facts.operands:
            if value.parameter and facts.node.op != "get_attr":
                lifted |= {(value, a) for a in value.axes_with(space) if (value, a) not in dropped}
    for facts in touching:  # a bare parameter that nobody contracts directly
        if facts.node.op == "get_attr" and isinstance(facts.output, Value) and facts.output.parameter:
            value = facts.output
            lifted |= {(value, a) for a in value.axes_with(space) if (value, a) not in contracted}
    return lifted


def _contracted(facts: NodeFacts, space: Space) -> set[Key]:
    """The axes that a node sums over the space along."""
    return {
        key
        for c in facts.contractions
        if holds((c.term,), space)
        for key in ((c.left, c.left_axis), (c.right, c.right_axis))
    }


def _require(facts: NodeFacts, plan: Plan) -> None:
    """Sums and normalisations at one node."""
    space, append = plan.units.space, plan.kind is Kind.APPEND
    for summation in facts.summations:
        key = (summation.value, summation.axis)
        wanted = Fill.ZERO if append else Fill.SHARE
        for i, fill in enumerate(_fill(plan, key, space)):
            if fill not in (wanted, Fill.NULL):
                raise _Unmet(facts, f"summed over with {fill.value} units", [(*key, i, wanted)])
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
        state = _fill(plan, key, plan.units.space)
        remedies = [(*key, i, fill) for fill in verdict.wanted for i, now in enumerate(state) if now is not fill]
        seen = " and ".join(dict.fromkeys(fill.value for fill in state))
        raise _Unmet(facts, f"the {statistic.kind.value} over the axis, whose new units are {seen}", remedies)
    plan.factors[statistic.output] = verdict.factor


def _changes_noise(facts: NodeFacts, plan: Plan) -> bool:
    """Whether elements that depend on each other are dropped one by one, so that train mode is another."""
    space = plan.units.space
    return any(
        fill in (Fill.MEAN, Fill.COPY, Fill.SHARE) or isinstance(fill, Weighted)
        for noise in facts.noises
        for axis in noise.value.axes_with(space)
        for fill in _fill(plan, (noise.value, axis), space)
    )


def _require_normalisation(facts: NodeFacts, norm: Normalisation, plan: Plan) -> None:
    space = plan.units.space
    axis = next(i for i in norm.axes if holds((norm.value.axes[i],), space))
    state = _fill(plan, (norm.value, axis), space)
    if plan.kind is Kind.REPLICATE:
        if not all(axis_map(term, plan.units).uniform for term in norm.term):
            raise _Unmet(facts, f"{norm.kind.value} over the axis admits only splits of all units alike", [])
        own = {fill for value in (norm.weight, norm.bias) if value for fill in _fills_of(plan, value, space)}
        if set(state) != {Fill.COPY} or not own <= {Fill.COPY}:
            raise _Unmet(facts, f"{norm.kind.value} over units that are not whole copies", [])
        return
    if norm.kind is NormKind.GROUP:
        raise _Unmet(facts, "group norm takes statistics over it: append whole groups instead", [])
    if norm.kind is NormKind.LAYER and (len(norm.term) != 1 or normal(norm.term[0]) is not space):
        raise _Unmet(facts, f"{norm.kind.value} over an axis of which this is only a part", [])
    if norm.eps is None or (norm.weight is None and norm.output is None):
        raise _Unmet(facts, f"{norm.kind.value} without a weight or an eps to correct", [])
    wanted = Fill.MEAN if norm.kind is NormKind.LAYER else Fill.ZERO
    for i, fill in enumerate(state):
        if fill is not wanted:
            text = f"{norm.kind.value} over the axis needs new units at {wanted.value}, but they are {fill.value}"
            raise _Unmet(facts, text, [(norm.value, axis, i, wanted)])
    if norm.weight is None and norm.output is not None:
        plan.factors[norm.output] = math.sqrt(old_share(norm, plan.units))
    if norm.bias is not None:
        for i, fill in enumerate(_fill(plan, (norm.bias, 0), space)):
            if fill is not Fill.ZERO:  # what comes out of the norm is zero, and must stay so
                raise _Unmet(
                    facts, f"{norm.kind.value} with a bias that is {fill.value}", [(norm.bias, 0, i, Fill.ZERO)]
                )


def _fills_of(plan: Plan, value: Value, space: Space) -> set[Held]:
    return {fill for axis in value.axes_with(space) for fill in _fill(plan, (value, axis), space)}


def _rescaled(touching: list[NodeFacts], plan: Plan) -> list[Normalisation]:
    """The normalisations over appended units, whose scale and eps must change."""
    if plan.kind is Kind.REPLICATE:
        return []
    return [norm for facts in touching for norm in facts.normalisations if holds(norm.term, plan.units.space)]


def _check_rescaled(touching: list[NodeFacts], plan: Plan) -> None:
    """The weight of a norm whose scale changes is a parameter that nothing else uses."""
    kinds = {norm.weight: norm.kind for norm in plan.rescaled}
    for facts in touching:
        if facts.node.op != "output" and not any(True for _ in flatten_values(facts.output)):
            continue  # its shape or dtype is read, and no number
        own = {norm.weight for norm in facts.normalisations if norm.weight and holds(norm.term, plan.units.space)}
        for value in (*facts.operands, *own):
            if value in kinds and not (value.parameter and value in own):
                text = f"the weight of a {kinds[value].value} that must be rescaled is used here too"
                raise _Unmet(facts, text, [])


def _fill(plan: Plan, key: Key, space: Space) -> State:
    return plan.fills.get(key, (Fill.EVEN,) * len(cells_of(*key, space)))


def _meeting(c: Contraction, plan: Plan) -> Iterator[tuple[int, int]]:
    """The occurrences of both sides that are multiplied with each other, by number."""
    sides = ((c.left, c.left_axis), (c.right, c.right_axis))
    return meeting(*(cells_of(*key, plan.units.space) for key in sides))


def _settled_readers(touching: list[NodeFacts], plan: Plan) -> dict[Key, State]:
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
                for pair in _meeting(c, plan):
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


def _present_readers(plan: Plan, present: Present) -> dict[Key, State]:
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
        return _fill(plan, other, space)
    written = Fill.FREE if plan.kind is Kind.APPEND else Fill.COPY
    opposite = Fill.ZERO if plan.kind is Kind.APPEND else Fill.SHARE
    count = len(cells_of(*other, space))
    return (written if mine == (c.right, c.right_axis) else opposite,) * count


def _reads_afresh(c: Contraction, plan: Plan) -> bool:
    """Whether fresh weights read new units that are zero, so that what writes those has a gradient."""
    if not holds((c.term,), plan.units.space):
        return False
    sides = ((c.left, c.left_axis), (c.right, c.right_axis))
    left, right = (_fill(plan, key, plan.units.space) for key in sides)
    afresh = any({left[i], right[j]} == {Fill.ZERO, Fill.FREE} for i, j in _meeting(c, plan))
    return afresh and any(key in plan.readers for key in sides)


def _check_contraction(facts: NodeFacts, c: Contraction, plan: Plan, read_afresh: bool, learns: bool) -> None:
    space = plan.units.space
    if not holds((c.term,), space):
        return
    left, right = (c.left, c.left_axis), (c.right, c.right_axis)
    for i, j in _meeting(c, plan):
        pair = (_fill(plan, left, space)[i], _fill(plan, right, space)[j])
        if Fill.NULL in pair:
            continue
        if plan.kind is Kind.APPEND:
            tied = any(value.parameter and (value, axis) not in plan.readers for value, axis in (left, right))
            if (
                learns and pair == (Fill.ZERO, Fill.ZERO) and not (tied and read_afresh)
            ):  # a tied table learns where it writes
                raise _Unmet(facts, "both sides of a product would be zero, and never learn", [])
            if Fill.ZERO not in pair:
                remedies = [(*right, j, Fill.ZERO), (*left, i, Fill.ZERO)]
                raise _Unmet(facts, "a product of two activations over the axis, neither of them zero", remedies)
        elif sorted(f.value for f in pair) != [Fill.COPY.value, Fill.SHARE.value]:
            remedies = [(*right, j, Fill.SHARE), (*left, i, Fill.SHARE)] if Fill.SHARE not in pair else []
            text = "a product over the axis counts copies twice" if remedies else "a product of two shares"
            raise _Unmet(facts, text, remedies)
