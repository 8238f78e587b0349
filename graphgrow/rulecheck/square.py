"""The commuting square of one rule, op'(E x) = E' op(x), checked against the real operator in float64.

A `Probe` feeds an operator from bare parameters, so that no axis is frozen by a model input, and sums what comes
out, so that none is frozen by a model output. Every fill state of every operand is tried, not those alone that the
planner would choose: whatever the rule's facts admit is carried out on the graph, and the operator itself must then
hold the old values at the old places and, at the new ones, what the fill state promises.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from graphgrow.capture.trace import capture
from graphgrow.errors import GraphGrowError, RuleError
from graphgrow.graph import Graph
from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import NodeFacts, flatten_values
from graphgrow.ir.flow import Clash, Common, Fill, Held, Level, State
from graphgrow.ir.positions import Units, axis_map, occurrences
from graphgrow.ir.terms import Space, leaves, normal, occurs
from graphgrow.ir.value import Value
from graphgrow.ops.registry import keys_of, module_keys
from graphgrow.planning.evaluate import evaluate
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.request import along
from graphgrow.planning.requirements import wanted_by
from graphgrow.rewrite.grow import grow
from graphgrow.rulecheck.lifted import Mismatch, Observed, observe, require_close, require_filled
from graphgrow.rulecheck.probe import Draw
from graphgrow.rulecheck.promises import factors_of, normalised_over, promised, squared

Key = tuple[Value, int]
Fills = dict[Key, State]

APPENDED = (Fill.FREE, Fill.ZERO, Fill.MEAN)
REPLICATED = (Fill.COPY, Fill.SHARE)
CHECKED = 6  # assignments of fill states that are carried out, for each space and kind of growth


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

    def spelled(self) -> str:
        """The fills of the parameters and of the outputs, in words."""
        given = {f"{v.name}.{axis}": state for (v, axis), state in self.plan.fills.items() if v.parameter}
        texts = [f"{name} {','.join(fill.value for fill in state)}" for name, state in given.items()]
        return f"{' and '.join(texts)} -> {self.result}"


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
        """Capture a probe and find the first (or the last) node of one of the targets.

        Raises:
            RuleError: if its graph has none.
        """
        captured = capture(probe.eval(), torch.ones(2, dtype=torch.float64))
        graph = Graph(captured.module, captured.inputs)
        every = list(graph.analysis.facts.values())
        wanted = {key for target in targets for key in keys_of(target)}
        for facts in reversed(every) if last else every:
            if _keys(graph, facts.node) & wanted:
                return cls(graph, facts)
        raise RuleError(f"no node of {', '.join(map(str, targets))} in the graph of the example:\n{graph.module.graph}")

    def frozen(self) -> dict[str, str]:
        """By parameter axis, why it is frozen."""
        return {
            f"{value.name}.{axis}": str(leaf.frozen)
            for value in self.sources()
            for axis, term in enumerate(value.axes)
            for leaf in leaves(term)
            if leaf.frozen
        }

    def spaces(self) -> dict[str, Space]:
        """The axes of the operator that can grow, by the first parameter that has them."""
        mine = {leaf for value in self.facts.values() for term in value.axes for leaf in leaves(term)}
        named: dict[Space, str] = {}
        for value in self.sources():
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
        normalised = any(normalised_over(norm, space) for one in facts for norm in one.normalisations)
        return normalised or any(occurs(space, term) for term in taken)

    def check_all(self, draw: Draw) -> dict[str, dict[str, set[str]]]:
        """Carry out a sample of what is admitted along each axis; returns all that is admitted.

        Raises:
            Mismatch: if the operator does not hold what its rule promises; names axis, fills and number of units.
        """
        generator = random.Random(draw(0, 10**6))
        tables = {}
        for name, space in self.spaces().items():
            found = {kind: self.admitted(space, kind) for kind in Kind}
            tables[name] = table_of([*found[Kind.APPEND], *found[Kind.REPLICATE]])
            for kind, outcomes in found.items():
                for outcome in _sample(outcomes, generator):
                    units = drawn_units(space, kind, draw, self.only_uniform(space))
                    try:
                        self.carry_out(outcome, units)
                    except Mismatch as mismatch:
                        how = f"{space.size} -> {units.new_size} units, {outcome.spelled()}"
                        raise Mismatch(f"{name}: {how}: {mismatch}") from mismatch
        return tables

    def admitted(self, space: Space, kind: Kind) -> list[Outcome]:
        """Every assignment of fill states to the parameters that the facts up to the operator's node admit."""
        return [outcome for _, outcome in self.assignments(space, kind) if outcome is not None]

    def assignments(self, space: Space, kind: Kind) -> Iterator[tuple[Plan, Outcome | None]]:
        """Every assignment of fill states to the parameters, and what the facts say to it; None where they decline."""
        keys = [(value, axis) for value in self.sources() for axis in value.axes_with(space)]
        options = [self._states(value, axis, space, kind) for value, axis in keys]
        for states in itertools.product(*options):
            plan = Plan(Units(space, torch.arange(space.size)), kind, dict(zip(keys, states, strict=True)))
            plan.readers = set(keys) & self._contracted(space)
            yield plan, self._evaluated(plan, states[0])

    def carry_out(self, outcome: Outcome, units: Units) -> None:
        """Grow the probe so, and compare the operator's outputs with those before.

        Raises:
            Mismatch: if they are not what the outcome says, or the grown operator fails.
        """
        for training in self._modes:
            before, grown = self.before(training), self.grown(outcome.plan, units, training)
            states = {id(value): (axis, state) for value, axis, state in outcome.outputs}
            for value, old, new in zip(self.outputs, before.outputs, grown.outputs, strict=True):
                axis, state = states.get(id(value), (None, ()))
                if axis is None:
                    require_close(new, old)
                else:
                    term = value.axes[axis]
                    require_filled(old, new, axis, axis_map(term, units), state, term, units)
            for name, old in before.buffers.items():
                require_close(grown.buffers[name], old)

    def grown(self, plan: Plan, units: Units, training: bool = False, stretch: float = 1.0) -> Observed:
        """What the operator puts out once the probe has grown by a plan; buffers cut down to the old units.

        Args:
            plan: the fills of the parameters.
            units: how many there are, and of which they are copies.
            training: in train mode.
            stretch: a factor on new entries of parameters that are free.

        Raises:
            Mismatch: if the grown operator fails.
        """
        plan = copy.copy(plan)
        plan.units = units
        editor = Editor(self.graph.module)
        try:
            plan.factors = factors_of(self._until, plan)
            step, _ = grow(self.graph, editor, plan, torch.Generator().manual_seed(1))
            for (value, axis), state in plan.fills.items() if stretch != 1.0 else ():
                if value.parameter and set(state) == {Fill.FREE}:
                    _stretch(editor.tensor(value.name), axis, step.tensors[value.name][axis], stretch)
            found = observe(editor.finish(), self.facts.node.name, training, step.nodes)
        except (GraphGrowError, RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise Mismatch(f"the grown operator fails ({type(error).__name__}: {error})") from error
        outputs = found.outputs
        if len(outputs) > 1:  # one of several is multiplied where it is taken out, behind the node
            outputs = [t * plan.factors.get(v, 1.0) for v, t in zip(self.outputs, outputs, strict=True)]
        buffers = found.buffers
        for name in buffers:
            for axis, kept in step.tensors.get(name, {}).items():
                buffers[name] = buffers[name].index_select(axis, kept)
        return Observed(outputs, buffers)

    @property
    def outputs(self) -> list[Value]:
        """The operator's output values."""
        return list(flatten_values(self.facts.output))

    def before(self, training: bool = False) -> Observed:
        """What the operator puts out before any growth."""
        if training not in self._observed:
            self._observed[training] = observe(copy.deepcopy(self.graph.module), self.facts.node.name, training)
        return self._observed[training]

    # -- the facts read as promises --------------------------------------------------------------------------

    def sources(self) -> list[Value]:
        """The parameters and buffers of the probe, the bare ones first."""
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
        choices: list[Held] = list(APPENDED if kind is Kind.APPEND else REPLICATED)
        if kind is Kind.APPEND:
            norms = (norm for facts in self._until for norm in facts.normalisations if normalised_over(norm, space))
            wanted = dict.fromkeys(fill for norm in norms for fill in wanted_by(norm, space))
            choices += [fill for fill in wanted if isinstance(fill, Level) and along(value, fill) is not None]
            choices += [fill for fill in wanted if isinstance(fill, Common) and fill.term == normal(value.axes[axis])]
        return list(itertools.product(choices, repeat=occurrences(value.axes[axis], space)))

    def _evaluated(self, plan: Plan, main: State) -> Outcome | None:
        space = plan.units.space
        for facts in self._until:
            for output, flow in facts.flows:
                for axis in output.axes_with(space):
                    try:
                        state = evaluate(flow, output, axis, space, plan.fills, facts.mixed)
                    except Clash:
                        return None
                    plan.fills[(output, axis)] = state
            if not promised(facts, plan):
                return None
        places = [(v, a) for v in flatten_values(self.facts.output) for a in v.axes_with(space)]
        if any(place not in plan.fills for place in places):
            raise RuleError("the rule does not say how new units get to its output: call.output(axes, flow)")
        outputs = [(value, axis, plan.fills[value, axis]) for value, axis in places]
        return Outcome(plan, main[0] if len(set(main)) == 1 else None, outputs)


@torch.no_grad()
def _stretch(tensor: torch.Tensor, axis: int, kept: torch.Tensor, factor: float) -> None:
    new = torch.ones(tensor.shape[axis], dtype=torch.bool)
    new[kept] = False
    tensor.transpose(0, axis)[new] *= factor


# -- tables --------------------------------------------------------------------------------------------------


def table_of(outcomes: Sequence[Outcome]) -> dict[str, set[str]]:
    """By fill of the parameter that names the axis, the fills of the outputs."""
    table: dict[str, set[str]] = {}
    for outcome in outcomes:
        if outcome.main is not None:
            table.setdefault(outcome.main.value, set()).add(outcome.result)
    return table


def rendered(table: Mapping[str, set[str]]) -> str:
    """As text: `free>free zero>free|zero`."""
    return " ".join(f"{fill}>{'|'.join(sorted(results))}" for fill, results in table.items())


def _sample(outcomes: list[Outcome], generator: random.Random) -> list[Outcome]:
    """One outcome of each kind, and some more."""
    first = {(outcome.main, outcome.result): outcome for outcome in outcomes}
    others = [outcome for outcome in outcomes if all(outcome is not one for one in first.values())]
    spare = max(0, min(len(others), CHECKED - len(first)))
    return [*first.values(), *generator.sample(others, spare)]


def drawn_units(space: Space, kind: Kind, draw: Draw, uniform: bool) -> Units:
    """Some appended units, or some copies of some units (of all, the same number, where that is asked for)."""
    old = torch.arange(space.size)
    if kind is Kind.APPEND:
        return Units(space, torch.cat([old, torch.zeros(draw(1, 3), dtype=torch.int64)]))
    if uniform:
        return Units(space, old.repeat(draw(2, 3)))
    copies = torch.tensor([draw(0, space.size - 1) for _ in range(draw(1, 3))])
    return Units(space, torch.cat([old, copies]))


def _keys(graph: Graph, node: fx.Node) -> set[object]:
    """Under which keys the rule of a node may be registered."""
    if node.op != "call_module":
        return set(keys_of(node.target)) if node.op in ("call_function", "call_method") else set()
    return module_keys(graph.module.get_submodule(str(node.target)))
