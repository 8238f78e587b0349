"""The commuting square of one rule, op'(E x) = E' op(x), checked against the real operator in float64.

A `Probe` feeds an operator from bare parameters, so that no axis is frozen by a model input, and sums what comes
out, so that none is frozen by a model output. Every fill state of every operand is tried, not those alone that the
planner would choose: whatever the rule's facts admit is carried out on the graph, and the operator itself must then
hold the old values at the old places and, at the new ones, what the fill state promises.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from graphgrow.capture.trace import capture
from graphgrow.graph import Graph
from graphgrow.ir.cells import cells_of, meeting
from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import NodeFacts, NormKind, flatten_values
from graphgrow.ir.flow import Clash, Fill, Held, State
from graphgrow.ir.positions import Units, axis_map, occurrences
from graphgrow.ir.terms import Product, Space, Term, leaves, normal
from graphgrow.ir.value import Value
from graphgrow.ops.registry import _CONDUCTS, class_name, registered
from graphgrow.rewrite.evaluate import evaluate
from graphgrow.rewrite.grow import grow
from graphgrow.rewrite.growth import Kind, Plan
from graphgrow.rewrite.statistics import growing_axis, judge
from tests.ops.lifted import Observed, assert_close, assert_filled, observe
from tests.ops.probe import Draw

Key = tuple[Value, int]
Fills = dict[Key, State]

APPENDED = (Fill.FREE, Fill.ZERO, Fill.MEAN)
REPLICATED = (Fill.COPY, Fill.SHARE)
CHECKED = 6  # assignments of fill states that are carried out, for each space and kind of growth


@dataclass(frozen=True)
class Case:
    """One operator and what its rule is expected to admit.

    Attributes:
        targets: the registered targets of which the probe holds at least one; the first that is found is checked.
        build: makes a probe of drawn sizes.
        admits: for each axis that may grow, named after the first parameter that has it (x, then
            the other bare ones by name, then the module's own) (`x.1`, and `x.1:0` for
            the first factor or part), what becomes of each fill of that parameter: `free>zero|free` says that
            free units are admitted and come out as zero or free, by what the other operands hold; `free>-` that
            the axis does not reach the output. A fill that is not listed must be declined.
        label: for the test's name.
    """

    targets: tuple[object, ...]
    build: Callable[[Draw], nn.Module]
    admits: Mapping[str, str]
    label: str = ""

    def __str__(self) -> str:
        target = self.targets[0]
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        kind = "module" if isinstance(target, type) else "method" if isinstance(target, str) else "function"
        return f"{name}-{kind}{'-' + self.label if self.label else ''}"

    def check(self, draw: Draw) -> None:
        """Compare what is admitted with the table, and everything admitted with the operator itself."""
        torch.manual_seed(draw(0, 10**6))
        square = Square.of(self.build(draw), self.targets)
        spaces = square.spaces()
        assert set(spaces) == set(self.admits), f"growable axes {sorted(spaces)}: {square.frozen()}"
        tables = square.check_all(draw)
        wanted = {name: _parse(text) for name, text in self.admits.items()}
        assert tables == wanted, f"the rule admits { {n: _render(t) for n, t in tables.items() if t != wanted[n]} }"


@dataclass
class Outcome:
    """An assignment of fill states that the facts admit.

    Attributes:
        plan: the fill of every parameter, and of every tensor that follows from them.
        main: the fill of the parameter that names the axis, None where its parts hold different ones.
        outputs: the state of each output of the operator that has the axis.
    """

    plan: Plan
    main: Held | None
    outputs: list[tuple[Value, int, State]] = field(default_factory=list)

    @property
    def result(self) -> str:
        """The states of the outputs as a table spells them: parts that hold different ones with a comma."""
        return ",".join(sorted({fill.value for _, _, state in self.outputs for fill in state})) or "-"


class Square:
    """A captured probe and the node whose rule is checked.

    Attributes:
        graph: the probe's graph.
        facts: of the operator's node.
    """

    def __init__(self, graph: Graph, facts: NodeFacts) -> None:
        self.graph, self.facts = graph, facts
        every = list(graph.analysis.facts.values())
        self._until = every[: every.index(facts) + 1]
        live = any(facts.node.op == "call_module" for facts in self._until) and not facts.noises
        self._modes = (False, True) if live else (False,)  # noise of its own for every unit: the rule says so
        self._observed: dict[bool, Observed] = {}

    @classmethod
    def of(cls, probe: nn.Module, targets: Sequence[object], last: bool = False) -> Square:
        """Capture a probe and find the first (or the last) node of one of the targets."""
        captured = capture(probe.eval(), torch.ones(2, dtype=torch.float64))
        graph = Graph(captured.module, captured.inputs)
        every = list(graph.analysis.facts.values())
        for facts in reversed(every) if last else every:
            if _target(graph, facts.node) & set(targets):
                return cls(graph, facts)
        raise AssertionError(f"no node of {targets} in\n{graph.module.graph}")

    def frozen(self) -> dict[str, str]:
        """By parameter axis, why it is frozen."""
        return {
            f"{value.name}.{axis}": str(leaf.frozen)
            for value in self._sources()
            for axis, term in enumerate(value.axes)
            for leaf in leaves(term)
            if leaf.frozen
        }

    def spaces(self) -> dict[str, Space]:
        """The axes of the operator that can grow, by the first parameter that has them."""
        mine = {leaf for value in self.facts.values() for term in value.axes for leaf in leaves(term)}
        named: dict[Space, str] = {}
        for value in self._sources():
            for axis, term in enumerate(value.axes):
                parts = list(leaves(term))
                for i, space in enumerate(parts):
                    name = f"{value.name}.{axis}" if len(parts) == 1 else f"{value.name}.{axis}:{i}"
                    if space in mine and space.frozen is None and self._covered(space):
                        named.setdefault(space, name)
        return {name: space for space, name in named.items()}

    def only_uniform(self, space: Space) -> bool:
        """Whether a normalisation or a statistic wants every unit copied alike."""
        facts = self._until
        taken = (s.value.axes[axis] for one in facts for s in one.statistics for axis in s.axes)
        return any(_normalised_over(norm, space) for one in facts for norm in one.normalisations) or any(
            leaf is space for term in taken for leaf in leaves(term)
        )

    def check_all(self, draw: Draw) -> dict[str, dict[str, set[str]]]:
        """Carry out a sample of what is admitted along each axis; returns all that is admitted."""
        generator = random.Random(draw(0, 10**6))
        tables = {}
        for name, space in self.spaces().items():
            found = {kind: self.admitted(space, kind) for kind in Kind}
            tables[name] = _table([*found[Kind.APPEND], *found[Kind.REPLICATE]])
            for kind, outcomes in found.items():
                for outcome in _sample(outcomes, generator):
                    self.carry_out(outcome, _units(space, kind, draw, self.only_uniform(space)))
        return tables

    def admitted(self, space: Space, kind: Kind) -> list[Outcome]:
        """Every assignment of fill states to the parameters that the facts up to the operator's node admit."""
        keys = [(value, axis) for value in self._sources() for axis in value.axes_with(space)]
        options = [self._states(value, axis, space, kind) for value, axis in keys]
        outcomes = []
        for states in itertools.product(*options):
            plan = Plan(Units(space, torch.arange(space.size)), kind, dict(zip(keys, states, strict=True)))
            plan.readers = set(keys) & self._contracted(space)
            outcome = self._evaluated(plan, states[0])
            if outcome is not None:
                outcomes.append(outcome)
        return outcomes

    def carry_out(self, outcome: Outcome, units: Units) -> None:
        """Grow the probe so, and compare the operator's outputs with those before."""
        plan = copy.copy(outcome.plan)
        plan.units = units
        plan.factors = _factors(self._until, plan)
        editor = Editor(self.graph.module)
        step, _ = grow(self.graph, editor, plan, torch.Generator().manual_seed(1))
        child = editor.finish()
        for training in self._modes:
            before, after = self._before(training), observe(child, self.facts.node.name, training)
            values = list(flatten_values(self.facts.output))
            grown = {id(value): (axis, state) for value, axis, state in outcome.outputs}
            assert len(values) == len(before.outputs) == len(after.outputs)
            for value, old, unscaled in zip(values, before.outputs, after.outputs, strict=True):
                # one of several outputs is multiplied where it is taken out, behind the node
                new = unscaled * plan.factors.get(value, 1.0) if len(values) > 1 else unscaled
                axis, state = grown.get(id(value), (None, ()))
                if axis is None:
                    assert_close(new, old)
                else:
                    assert_filled(old, new, axis, axis_map(value.axes[axis], units), state, value.axes[axis], units)
            for name, old in before.buffers.items():
                new = after.buffers[name]
                for axis, kept in step.tensors.get(name, {}).items():
                    new = new.index_select(axis, kept)
                assert_close(new, old)

    def _before(self, training: bool) -> Observed:
        if training not in self._observed:
            self._observed[training] = observe(copy.deepcopy(self.graph.module), self.facts.node.name, training)
        return self._observed[training]

    # -- the facts read as promises --------------------------------------------------------------------------

    def _sources(self) -> list[Value]:
        return list(dict.fromkeys(self.graph.analysis.parameters[name] for name in self._names()))

    def _names(self) -> Iterator[str]:
        known = self.graph.analysis.parameters
        order = [*self.graph.module.named_parameters(), *self.graph.module.named_buffers()]
        names = [name for name, _ in order if name in known]
        yield from sorted(names, key=lambda name: (name.count("."), name != "x", name))

    def _contracted(self, space: Space) -> set[Key]:
        found = (
            (c.left, c.left_axis, c.right, c.right_axis)
            for facts in self._until
            for c in facts.contractions
            if occurrences(c.term, space)
        )
        return {key for left, i, right, j in found for key in ((left, i), (right, j)) if key[0].parameter}

    def _covered(self, space: Space) -> bool:
        """Whether no tensor has the axis twice, and none is a product of it with itself."""
        for facts in self._until:
            for value in facts.values():
                axes = value.axes_with(space)
                if (len(axes) > 1 and not value.parameter) or any(squared(value.axes[a], space) for a in axes):
                    return False
        return True

    def _states(self, value: Value, axis: int, space: Space, kind: Kind) -> list[State]:
        choices = list(APPENDED if kind is Kind.APPEND else REPLICATED)
        if kind is Kind.APPEND and normal(value.axes[axis]) is not space:
            choices.remove(Fill.MEAN)
        return list(itertools.product(choices, repeat=occurrences(value.axes[axis], space)))

    def _evaluated(self, plan: Plan, main: State) -> Outcome | None:
        space = plan.units.space
        for facts in self._until:
            for output, flow in facts.flows:
                for axis in output.axes_with(space):
                    try:
                        state = evaluate(flow, output, axis, space, plan.fills)
                    except Clash:
                        return None
                    plan.fills[(output, axis)] = state
            if not _promised(facts, plan):
                return None
        outputs = [(v, a, plan.fills[(v, a)]) for v in flatten_values(self.facts.output) for a in v.axes_with(space)]
        return Outcome(plan, main[0] if len(set(main)) == 1 else None, outputs)


def _promised(facts: NodeFacts, plan: Plan) -> bool:
    """Whether a node's requirements hold; normalisations that must be rescaled are noted in the plan."""
    space, append = plan.units.space, plan.kind is Kind.APPEND

    def states(value: Value | None, axis: int) -> set[Held]:
        return set() if value is None else set(plan.fills.get((value, axis), ()))

    for summation in facts.summations:
        if not states(summation.value, summation.axis) <= {Fill.ZERO if append else Fill.SHARE, Fill.NULL}:
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
        for i, j in meeting(*(cells_of(*key, space) for key in sides)):
            a, b = left[i], right[j]
            if Fill.NULL not in (a, b) and not (Fill.ZERO in (a, b) if append else {a, b} == {Fill.COPY, Fill.SHARE}):
                return False
    for norm in facts.normalisations:
        if not _normalised_over(norm, space):
            continue
        own = [state for value in (norm.weight, norm.bias) if value for state in [_parameter_states(plan, value)]]
        axis = next(i for i in norm.axes if occurrences(norm.value.axes[i], space))
        if not append:
            if not all(axis_map(term, doubled).uniform for term in norm.term):
                return False  # not even copies of all units are copies of all positions
            if states(norm.value, axis) != {Fill.COPY} or not set().union(*own) <= {Fill.COPY}:
                return False
            continue
        wanted = {Fill.MEAN} if norm.kind is NormKind.LAYER else {Fill.ZERO}
        whole = norm.kind is NormKind.RMS or (len(norm.term) == 1 and normal(norm.term[0]) is space)
        whole = whole and norm.kind is not NormKind.GROUP
        mended = norm.eps is not None and (norm.weight is not None or norm.output is not None)
        if not whole or not mended or states(norm.value, axis) != wanted:
            return False
        if norm.bias is not None and _parameter_states(plan, norm.bias) != {Fill.ZERO}:
            return False
        plan.rescaled.append(norm)
    return True


def _factors(until: Sequence[NodeFacts], plan: Plan) -> dict[Value, float]:
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
            if append and norm.weight is None and norm.output and _normalised_over(norm, plan.units.space):
                factors[norm.output] = math.sqrt(_seen_before(norm, plan.units))
    return factors


def _seen_before(norm: Any, units: Units) -> float:
    """The share of old positions among all that a norm sees, by laying out its axes."""
    return math.prod(len(m.kept) / len(m.source) for m in (axis_map(term, units) for term in norm.term))


def _parameter_states(plan: Plan, value: Value) -> set[Held]:
    return {fill for axis in value.axes_with(plan.units.space) for fill in plan.fills[(value, axis)]}


def _normalised_over(norm: Any, space: Space) -> bool:
    return any(leaf is space for term in norm.term for leaf in leaves(term))


def squared(term: Term, space: Space) -> bool:
    """Whether the term holds a product of the space with itself."""
    term = normal(term)
    if isinstance(term, Space):
        return False
    children = term.factors if isinstance(term, Product) else term.parts
    holding = [child for child in children if occurrences(child, space)]
    return (isinstance(term, Product) and len(holding) > 1) or any(squared(child, space) for child in holding)


# -- tables --------------------------------------------------------------------------------------------------


def _table(outcomes: Sequence[Outcome]) -> dict[str, set[str]]:
    table: dict[str, set[str]] = {}
    for outcome in outcomes:
        if outcome.main is not None:
            table.setdefault(outcome.main.value, set()).add(outcome.result)
    return table


def _parse(text: str) -> dict[str, set[str]]:
    return {fill: set(results.split("|")) for fill, results in (item.split(">") for item in text.split())}


def _render(table: Mapping[str, set[str]]) -> str:
    return " ".join(f"{fill}>{'|'.join(sorted(results))}" for fill, results in table.items())


def _sample(outcomes: list[Outcome], generator: random.Random) -> list[Outcome]:
    """One outcome of each kind, and some more."""
    first = {(outcome.main, outcome.result): outcome for outcome in outcomes}
    others = [outcome for outcome in outcomes if all(outcome is not one for one in first.values())]
    spare = max(0, min(len(others), CHECKED - len(first)))
    return [*first.values(), *generator.sample(others, spare)]


def _units(space: Space, kind: Kind, draw: Draw, uniform: bool) -> Units:
    """Some appended units, or some copies of some units (of all, the same number, where that is asked for)."""
    old = torch.arange(space.size)
    if kind is Kind.APPEND:
        return Units(space, torch.cat([old, torch.zeros(draw(1, 3), dtype=torch.int64)]))
    if uniform:
        return Units(space, old.repeat(draw(2, 3)))
    copies = torch.tensor([draw(0, space.size - 1) for _ in range(draw(1, 3))])
    return Units(space, torch.cat([old, copies]))


def _target(graph: Graph, node: fx.Node) -> set[object]:
    """Under which targets a node may be registered."""
    if node.op != "call_module":
        if node.op not in ("call_function", "call_method"):
            return set()
        return {node.target, getattr(node.target, "_qualified_op_name", node.target)}
    module = graph.module.get_submodule(str(node.target))
    known = {recognises for recognises in _CONDUCTS if recognises(module)}
    return known | {type(module), class_name(type(module))} & set(registered())
