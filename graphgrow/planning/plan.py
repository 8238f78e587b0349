"""Planning growth: which fill state each tensor takes, so that the whole is exact.

Parameters are the sources: the fill of their new entries is chosen, everything else follows by the flows. The
planner starts with free rows (or copies), finds the first requirement that is not met, asks the flow backwards
which sources must change, and evaluates again from the first of them on. Only an evaluation in which every
requirement holds is accepted, so an error of the search can lose a growth but never an exactness.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from graphgrow.errors import Declined
from graphgrow.ir.cells import cells_of
from graphgrow.ir.facts import NodeFacts, flatten_values
from graphgrow.ir.flow import Clash, Fill, Held
from graphgrow.ir.positions import Units, occurrences
from graphgrow.ir.terms import Product, Space, Term, children, leaves, normal
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.analysis import Analysis
from graphgrow.planning.evaluate import Key, evaluate, holds
from graphgrow.planning.growth import Kind, Plan, Present
from graphgrow.planning.reading import present_readers, reads_afresh, settled_readers
from graphgrow.planning.request import Requests
from graphgrow.planning.requirements import (
    Remedies,
    Unmet,
    changes_noise,
    check_contraction,
    check_rescaled,
    check_storings,
    require,
    rescaled,
)
from graphgrow.planning.slopes import check_slopes
from graphgrow.planning.train_alone import in_train_alone
from graphgrow.planning.twice import check_fills, check_form

_REMEDIES = {
    "a model output": "; `grow-outputs` appends to what leaves the model",
    "a model input": "; `grow-inputs` appends channels to an input",
}
MOST_OTHER_ANSWERS = 4  # each is a search of its own


def plan_growth(analysis: Analysis, units: Units, kind: Kind, present: Present | None = None) -> Plan:
    """Find fill states with which growing the space is exact.

    With `present` the question is the dual one: whether units that are there already could have been appended
    exactly, and so may be taken away. A parameter then takes only fills that its numbers show.

    Raises:
        Declined: if there are none, with the node and the reason.
    """
    space = units.space
    if space.frozen is not None:
        remedy = _REMEDIES.get(space.frozen.text, "")
        raise Declined(f"the axis is frozen: {space.frozen}{remedy}")
    touching = analysis.touching(space)
    for facts in touching:
        _check_shape(facts, space)
        check_form(facts, space)
    for facts in analysis.restating(space):
        _check_numbers(analysis, facts, space)
    search = _Search(Plan(units, kind), touching, present)
    try:
        return search.run()
    except Declined:
        for question in search.open[:MOST_OTHER_ANSWERS]:
            with suppress(Declined):
                return _Search(Plan(units, kind), touching, present, question).run()
        if search.met_pole and present is None:
            with suppress(Declined):
                return _Search(Plan(units, kind), touching, present, repeats=True).run()
        raise


class _Search:
    """The plan under search. Each round evaluates only what follows the parameters that the last request changed.

    Args:
        plan: to fill in.
        touching: the nodes that have the space.
        present: as for `plan_growth`.
        doubted: remedies that are to be tried from the last to the first.
        repeats: whether new units of parameters in front of a function with poles are to repeat the first unit, on
            which it is finite, and not to be zero.

    Attributes:
        open: the remedies of which one was taken, and another could have been.
        met_pole: whether a function of parameters alone stood in the way that may not be finite on new units.
    """

    def __init__(
        self,
        plan: Plan,
        touching: list[NodeFacts],
        present: Present | None,
        doubted: Remedies | None = None,
        repeats: bool = False,
    ) -> None:
        self.plan, self.open, self._doubted = plan, list[Remedies](), doubted
        self.met_pole, self._repeats = False, repeats
        self._touching = touching
        self._present = present
        if any(facts.draws or facts.noises for facts in touching):
            plan.train_alone = in_train_alone(touching[0].node.graph)
        self._requests = Requests(touching, plan.units.space, None if present is None else present.shows)
        self._start = Fill.FREE if plan.kind is Kind.APPEND else Fill.COPY
        self._settled: set[Key] = set()  # reading axes whose fills were derived by the last evaluation
        self._first_use: dict[Value, int] = {}
        self._resting = _biases(touching, plan.units.space) if present is None else frozenset[Value]()
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
        """New units of an input, which are appended, hold whatever the caller gives."""
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
        value = key[0]
        table = value.parameter and value.buffer and value.fresh is Fresh.LIKE and self._start is Fill.FREE
        start = Fill.REPEAT if table and self._present is None else self._start  # numbers that mean something
        if value in self._resting and self._start is Fill.FREE:
            start = Fill.ZERO  # what a norm puts out is read afresh then
        self.plan.fills[key] = tuple(wanted.get(i, start) for i in range(count))

    def run(self) -> Plan:
        """Evaluate, mend, and evaluate again, until every requirement holds.

        Raises:
            Declined: if one cannot be made to hold.
        """
        start = 0
        while True:  # each round asks a parameter for a fill, for good: it ends
            try:
                self.evaluate(start)
                return self.plan
            except Unmet as unmet:
                start = self.mend(unmet)

    def evaluate(self, start: int) -> None:
        """Evaluate the nodes from a position on, and check that every requirement holds.

        Raises:
            Unmet: at the first one that does not.
        """
        for number in range(start, len(self._touching)):
            self._carry(self._touching[number])
            check_fills(self._touching[number], self.plan)
            require(self._touching[number], self.plan)
        self.plan.rescaled = rescaled(self._touching, self.plan)
        check_rescaled(self._touching, self.plan)
        if self._present is None:
            settled = settled_readers(self._touching, self.plan)
        else:
            settled = present_readers(self.plan, self._present)
        self._settled = set(settled)
        self.plan.fills.update(settled)
        for facts in self._touching:
            check_storings(facts, self.plan)
        contractions = [(facts, contraction) for facts in self._touching for contraction in facts.contractions]
        read_afresh = any(reads_afresh(facts, contraction, self.plan) for facts, contraction in contractions)
        learns = self._present is None  # what is taken away need not
        for facts, contraction in contractions:
            check_contraction(facts, contraction, self.plan, read_afresh, learns)
        if learns and self.plan.kind is Kind.APPEND:
            check_slopes(self._touching, self.plan)
        if any(changes_noise(facts, self.plan) for facts in self._touching):
            self.plan.exact_in -= {"train"}

    def _carry(self, facts: NodeFacts) -> None:
        """The fills of a node's outputs, from those of its operands."""
        space = self.plan.units.space
        for output, flow in facts.flows:
            for axis in output.axes_with(space):
                try:
                    state = evaluate(flow, output, axis, space, self.plan.fills, facts.mixed)
                except Clash as clash:
                    raise Unmet(facts, str(clash), [], clash) from None
                if facts.noises or facts.draws:  # what was drawn for the first unit is not drawn again
                    state = tuple(Fill.FREE if fill is Fill.REPEAT else fill for fill in state)
                if facts.draws and self.plan.kind is Kind.REPLICATE:  # where it counts: as `require` has it
                    state = (Fill.COPY,) * len(state)
                self.plan.fills[(output, axis)] = state

    def mend(self, unmet: Unmet) -> int:
        """Change the sources so that a requirement may hold; from where on to evaluate again.

        Raises:
            Declined: if no change can bring that about.
        """
        remedies = tuple(unmet.remedies)
        order = remedies[::-1] if remedies == self._doubted else remedies
        changed = next(filter(None, (self._requests.ask(*remedy) for remedy in order)), None)
        if changed and len(remedies) > 1:
            self.open.append(remedies)
        if unmet.clash is not None and unmet.clash.at is not None:
            constant = self._requests.is_constant(unmet.clash.at)
            self.met_pole |= constant
            wanted = Fill.REPEAT if self._repeats and constant else unmet.clash.wanted
            if wanted is not None:
                changed = self._requests.ask_operands(unmet.clash.at, wanted)
        if not changed:
            raise _declined(unmet) from None
        for key in self._settled:
            del self.plan.fills[key]
        self._settled = set()
        keys = sorted(changed, key=lambda key: self._first_use[key[0]])
        for key in keys:
            self.plan.readers.discard(key)
            self._choose(key, self._requests.asked[key])
        return self._first_use[keys[0][0]]


def _declined(unmet: Unmet) -> Declined:
    return Declined(f"{unmet.text} (at `{unmet.facts.module_path or unmet.facts.node.name}`)")


def _check_shape(facts: NodeFacts, space: Space) -> None:
    """Forms that the calculus does not cover: a tensor with the space on two axes, or squared in one."""
    site = facts.module_path or facts.node.name
    for value in facts.values():
        if any(_squared(value.axes[axis], space) for axis in value.axes_with(space)):
            raise Declined(f"an axis is a product of this axis with itself (at `{site}`)")


def _check_numbers(analysis: Analysis, facts: NodeFacts, space: Space) -> None:
    """Numbers that must stay as they are: none that is computed from one of the inputs' sizes too, which may vary.

    A frozen axis that a parameter has is of one size in every call.
    """
    for pin in facts.pins:
        parts = {leaf for term in pin.terms for leaf in leaves(term)}
        if space in parts and any(leaf.frozen and leaf not in analysis.settled for leaf in parts):
            site = facts.module_path or facts.node.name
            raise Declined(f"a number at `{site}` is computed from this size and from one of the inputs'")


def _squared(term: Term, space: Space) -> bool:
    term = normal(term)
    if isinstance(term, Space):
        return False
    holding = [child for child in children(term) if occurrences(child, space)]
    if isinstance(term, Product) and len(holding) > 1:
        return True
    return any(_squared(child, space) for child in holding)


def _biases(touching: list[NodeFacts], space: Space) -> frozenset[Value]:
    """The biases of norms over the space."""
    norms = (norm for facts in touching for norm in facts.normalisations if holds(norm.term, space))
    return frozenset(norm.bias for norm in norms if norm.bias is not None)


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
