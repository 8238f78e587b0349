"""Analysis of a whole graph: every node's facts, and the channel groups that follow from them."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.ir.facts import Derived, Extent, NodeFacts, Pin, Slot, StatisticKind, flatten_values
from graphgrow.ir.hooks import hook_of
from graphgrow.ir.meta import OVERWRITTEN
from graphgrow.ir.quasilinear import computed
from graphgrow.ir.terms import Axes, Concat, Reason, Space, Term, freeze, leaves, normal
from graphgrow.ir.value import Value
from graphgrow.ops.bounding import POSITIVE, bound, number_bounds
from graphgrow.ops.call import Call, RuleDeclined
from graphgrow.ops.infinities import mark_infinite
from graphgrow.ops.registry import Rule, rule_of
from graphgrow.ops.sizes import only_kind_read


@dataclass
class Analysis:
    """What is known of a graph.

    Attributes:
        facts: by node, in topological order.
        parameters: by qualified name (aliases included), the value of each parameter and buffer that is used.
        unknown: nodes without a rule, or in a form that their rule does not know, with the reason.
    """

    facts: dict[fx.Node, NodeFacts] = field(default_factory=dict)
    parameters: dict[str, Value] = field(default_factory=dict)
    unknown: dict[fx.Node, str] = field(default_factory=dict)
    _touching: dict[Space, list[NodeFacts]] | None = None
    _restating: dict[Space, list[NodeFacts]] | None = None

    def touching(self, space: Space) -> list[NodeFacts]:
        """The facts of the nodes that have a value over the space, in topological order."""
        if self._touching is None:
            self._touching = {}
            for facts in self.facts.values():
                spaces = {leaf for value in facts.values() for term in value.axes for leaf in leaves(term)}
                for leaf in spaces:
                    self._touching.setdefault(leaf, []).append(facts)
        return self._touching.get(space, [])

    def restating(self, space: Space) -> list[NodeFacts]:
        """The facts of the nodes that restate a size in which the space has a part, in topological order.

        A number read off an axis may be used far from it: not all of them have a value over the space.
        """
        if self._restating is None:
            self._restating = {}
            for facts in self.facts.values():
                stated = (
                    facts.split_parts,
                    *((*size.terms, *size.within) for size in facts.sizes),
                    *(pin.terms for pin in facts.pins),
                )
                for leaf in {leaf for terms in stated for term in terms for leaf in leaves(term)}:
                    self._restating.setdefault(leaf, []).append(facts)
        return self._restating.get(space, [])

    @functools.cached_property
    def settled(self) -> frozenset[Space]:
        """The spaces that a parameter or buffer has in an axis: their sizes are the same in every call."""
        axes = (term for value in self.parameters.values() for term in value.axes)
        return frozenset(leaf for term in axes for leaf in leaves(term))

    @functools.cached_property
    def fetched(self) -> frozenset[str]:
        """The names of parameters and buffers that a node fetches bare, for more than their dtype and device."""
        nodes = (node for node in self.facts if node.op == "get_attr" and not only_kind_read(node))
        return frozenset(str(node.target) for node in nodes)

    def reading_axes(self) -> set[tuple[Value, int]]:
        """The axes of parameters along which activations are read (contracted)."""
        return {
            (value, axis)
            for facts in self.facts.values()
            for c in facts.contractions
            for value, axis in ((c.left, c.left_axis), (c.right, c.right_axis))
            if value.parameter
        }


@dataclass(frozen=True)
class Opening:
    """Axes of a model's interface that an analysis leaves free, for the few passes that change it.

    Attributes:
        outputs: whether the axes of the outputs are free.
        inputs: pairs of a placeholder's name and an axis of it.
        tables: names of parameters whose first axis is free, though it is looked up or cut by position.
    """

    outputs: bool = False
    inputs: frozenset[tuple[str, int]] = frozenset()
    tables: frozenset[str] = frozenset()


def analyse(module: fx.GraphModule, opening: Opening | None = None) -> Analysis:
    """Run the rules over a graph whose nodes have their example values.

    Of a buffer that the forward overwrites, and that holds no negative number, it is presumed that it never does; where
    the rules do not find what is stored in it to be so, they are run again without.
    """
    signed = set[str]()
    while True:
        analysis = _Analyser(module, opening or Opening(), signed).run()
        storings = (storing for facts in analysis.facts.values() for storing in facts.storings)
        found = {storing.buffer.name for storing in storings if storing.value.bounds not in storing.buffer.bounds}
        if not found:
            return analysis
        signed |= found


class _Analyser:
    def __init__(self, module: fx.GraphModule, opening: Opening, signed: set[str]) -> None:
        self._module, self._opening, self._signed = module, opening, signed
        self._overwritten = {str(node.target) for node in module.graph.nodes if node.meta.get(OVERWRITTEN)}
        self._free: set[Space] = set()  # which rules do not freeze by position
        self._analysis = Analysis()
        self._by_identity: dict[int, Value] = {}
        self._names: dict[int, list[str]] = {}
        named = list(module.named_parameters(remove_duplicate=False)) + list(
            module.named_buffers(remove_duplicate=False)
        )
        for name, tensor in named:
            self._names.setdefault(id(tensor), []).append(name)

    def run(self) -> Analysis:
        for node in self._module.graph.nodes:
            facts = NodeFacts(node)
            self._analysis.facts[node] = facts
            getattr(self, f"_{node.op}")(node, facts)
        self._freeze_moving_counts()
        self._freeze_empty()
        return self._analysis

    def _freeze_empty(self) -> None:
        """Freeze axes of parameters that have no units: nothing says what more of them would be like."""
        for value in self._analysis.parameters.values():
            for leaf in (leaf for term in value.axes for leaf in leaves(term) if not leaf.size):
                freeze((leaf,), Reason(value.name, "an axis without units"))

    def _freeze_moving_counts(self) -> None:
        """Freeze axes that are cut or counted together with the length of an input, which varies from call to call."""
        for facts in self._analysis.facts.values():
            site = facts.module_path or facts.node.name
            for cut in facts.cuts:
                if self._varies(cut.anchor):
                    freeze((cut.whole,), Reason(site, "cut at a place that the length of an input moves"))
            counted = [s.value.axes[i] for s in facts.statistics if s.kind is not StatisticKind.EXTREME for i in s.axes]
            counted += [term for norm in facts.normalisations for term in norm.term]
            for term in counted:
                if isinstance(normal(term), Concat) and self._varies((term,)):
                    freeze((term,), Reason(site, "counted together with the length of an input"))

    def _varies(self, terms: Axes) -> bool:
        """Whether other inputs may give these axes other sizes: no parameter settles all of them that are frozen."""
        return any(leaf.frozen and leaf not in self._analysis.settled for term in terms for leaf in leaves(term))

    # -- nodes by kind -------------------------------------------------------------------------------------

    def _placeholder(self, node: fx.Node, facts: NodeFacts) -> None:
        facts.output = self._opaque(node.meta["value"], node.name, Reason(node.name, "a model input"))
        if isinstance(facts.output, Value):
            for axis, term in enumerate(facts.output.axes):
                if (node.name, axis) in self._opening.inputs and isinstance(term, Space):
                    term.frozen = None

    def _output(self, node: fx.Node, facts: NodeFacts) -> None:
        result = self._values(node.args[0])
        for value in flatten_values(result):
            facts.operands.append(value)
            if not self._opening.outputs:
                freeze(value.axes, Reason(node.name, "a model output"))

    def _get_attr(self, node: fx.Node, facts: NodeFacts) -> None:
        facts.module_path = str(node.target).rpartition(".")[0] or str(node.target)
        facts.output = self._parameter_named(str(node.target))
        if facts.output is None:
            facts.output = self._opaque(node.meta["value"], node.name, Reason(node.name, "a constant of the graph"))

    def _call_module(self, node: fx.Node, facts: NodeFacts) -> None:
        facts.module_path = str(node.target)
        self._apply(node, facts, self._module.get_submodule(str(node.target)))

    def _call_function(self, node: fx.Node, facts: NodeFacts) -> None:
        self._apply(node, facts, None)

    _call_method = _call_function

    # -- one call ------------------------------------------------------------------------------------------

    def _apply(self, node: fx.Node, facts: NodeFacts, module: nn.Module | None) -> None:
        args, kwargs = self._values((node.args, node.kwargs))
        if kwargs.get("out", self) is None:  # as where it is left out
            kwargs = {name: given for name, given in kwargs.items() if name != "out"}
        operands = list(flatten_values((args, kwargs)))
        rule = rule_of(node, module)
        makes_tensor = rule is not None and isinstance(node.meta["value"], torch.Tensor)
        if not operands and module is None and not makes_tensor and not _looks_up(node, args):
            facts.output = self._computed(node, args, kwargs)
            return
        facts.operands.extend(operands)
        if _builds_an_output(node):
            for value in operands if not self._opening.outputs else ():
                freeze(value.axes, Reason(node.name, "a model output"))
            return
        problem = "no rule" if rule is None else _misfit(rule, len(args), tuple(kwargs))
        hook = hook_of(module) if module is not None else ""
        if hook:
            problem = f"has a {hook}, which may do anything to what it sees"
        if rule is not None and problem is None:
            parameter = lambda name: self._module_parameter(node, name)  # noqa: E731
            call = Call(node, facts, module, parameter, node.meta["value"], self._free)
            try:
                facts.output = rule(call, *args, **kwargs)
                problem = _misshapen(facts.output, node.meta["value"])
                if problem is None:
                    bound(facts, module, args, kwargs)
                    mark_infinite(facts, module, args, kwargs)
                    self._pin_numbers(node, facts)
                    return
            except RuleDeclined as declined:
                problem = str(declined)
            except (IndexError, KeyError, AttributeError, TypeError, ValueError) as error:
                problem = f"its rule fails on this form ({type(error).__name__}: {error})"  # freezing is always right
        read = [term for leaf in pytree.tree_leaves((args, kwargs)) for term in _terms_of(leaf)]
        self._unknown(node, facts, module, problem or "no rule", read)

    def _unknown(
        self, node: fx.Node, facts: NodeFacts, module: nn.Module | None, problem: str, read: list[Term]
    ) -> None:
        """Freeze all that an operator without a rule touches: operands, its own parameters, axes whose sizes it reads.

        Where all of that is frozen already (positions, masks), nothing is lost, and nothing is reported.
        """
        what = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
        text = f"{what}: {problem}" if problem != "no rule" else f"{what} has no axis rule"
        reason = Reason(facts.module_path or node.name, text)
        facts.flows, facts.contractions, facts.normalisations = [], [], []
        facts.summations, facts.statistics, facts.noises, facts.sizes, facts.pins = [], [], [], [], []
        facts.draws, facts.storings = [], []
        facts.split_parts, facts.cuts = (), []
        if module is not None:
            for name, _ in [*module.named_parameters(), *module.named_buffers()]:
                value = self._parameter_named(f"{node.target}.{name}")
                if value is not None:
                    facts.operands.append(value)
        touched = [*read, *(term for value in facts.operands for term in value.axes)]
        if not all(leaf.frozen for term in touched for leaf in leaves(term)):
            self._analysis.unknown[node] = text
        freeze(touched, reason)
        facts.output = self._opaque(node.meta["value"], node.name, reason)

    def _computed(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """A plain number, or a new tensor, that is computed from sizes at most."""
        terms = tuple(term for leaf in pytree.tree_leaves((args, kwargs)) for term in _terms_of(leaf))
        value = node.meta["value"]
        if isinstance(value, torch.Tensor) or any(isinstance(v, torch.Tensor) for v in pytree.tree_leaves(value)):
            freeze(terms, Reason(node.name, "its size is read to make a new tensor"))
            return self._opaque(value, node.name, Reason(node.name, "a tensor made from sizes"))
        if not terms:
            return value
        if node.target is operator.add and all(isinstance(arg, tuple) for arg in args):
            return tuple(args[0]) + tuple(args[1])
        bounds = number_bounds(node.target, args, kwargs)
        law = None if kwargs else computed(node.target, tuple(getattr(arg, "law", arg) for arg in args))
        bounds = bounds if law is None else bounds & law.bounds
        if isinstance(value, int) and not isinstance(value, bool):
            return Extent(value, terms, bounds, law)
        return Derived(value, terms, bounds, law)

    def _pin_numbers(self, node: fx.Node, facts: NodeFacts) -> None:
        """Numbers computed from sizes that an operator takes as numbers must not change with the sizes."""
        restated = {size.slot.path for size in facts.sizes if not size.slot.on_module}
        for path, source in _argument_slots(node):
            output = self._analysis.facts[source].output
            if path in restated or not isinstance(output, (Extent, Derived)):
                continue
            if not any(path[: len(r)] == r for r in restated):
                value = int(output) if isinstance(output, Extent) else output.value
                facts.pins.append(Pin(Slot(path, False), tuple(output.terms), value))

    # -- values ----------------------------------------------------------------------------------------------

    def _values(self, arguments: Any) -> Any:
        box: Any = lambda node: _Boxed(self._analysis.facts[node].output)  # noqa: E731  # fx types it too narrowly
        return _plain_containers(fx.node.map_arg(arguments, box))

    def _opaque(self, meta: Any, name: str, reason: Reason) -> Any:
        """Values with axes of their own, all frozen, for every tensor of an example value."""
        if isinstance(meta, torch.Tensor):
            return Value(tuple(Space(size, frozen=reason) for size in meta.shape), name)
        if isinstance(meta, (tuple, list)):
            return tuple(self._opaque(item, f"{name}[{i}]", reason) for i, item in enumerate(meta))
        if isinstance(meta, dict):
            return {key: self._opaque(item, f"{name}[{key!r}]", reason) for key, item in meta.items()}
        return meta

    def _module_parameter(self, node: fx.Node, name: str) -> Value | None:
        module = self._module.get_submodule(str(node.target))
        if not isinstance(getattr(module, name, None), torch.Tensor):
            return None
        return self._parameter_named(f"{node.target}.{name}")

    def _parameter_named(self, name: str) -> Value | None:
        owner = self._module.get_submodule(name.rpartition(".")[0])
        tensor = getattr(owner, name.rpartition(".")[2], None)
        if not isinstance(tensor, torch.Tensor):
            return None
        value = self._by_identity.get(id(tensor))
        if value is None:
            aliases = tuple(self._names.get(id(tensor), [name]))
            buffer = not isinstance(tensor, nn.Parameter)
            value = Value(tuple(map(Space, tensor.shape)), aliases[0], True, buffer, aliases=aliases, constant=True)
            value.complex = tensor.is_complex()
            value.infinite = buffer and _holds_infinity(tensor)
            if self._overwritten.intersection(aliases) and value.name not in self._signed and _is_positive(tensor):
                value.bounds = POSITIVE
            if self._opening.tables & set(aliases):
                self._free.update(leaves(value.axes[0]))
            if not tensor.is_floating_point() and (buffer or not tensor.is_complex()):
                kind = "of complex numbers" if tensor.is_complex() else "that is not of floating point"
                freeze(value.axes, Reason(aliases[0], f"a table {kind}"))
            self._by_identity[id(tensor)] = value
            for alias in aliases:
                self._analysis.parameters[alias] = value
        return value


def _is_positive(tensor: torch.Tensor) -> bool:
    """Whether no entry of a buffer is negative, nor all of them zero, as a mean is before the first call."""
    return tensor.is_floating_point() and (tensor.is_meta or (bool((tensor >= 0).all()) and bool((tensor > 0).any())))


def _holds_infinity(tensor: torch.Tensor) -> bool:
    """Whether a table holds infinite numbers, as a mask that is added does."""
    return tensor.is_floating_point() and not tensor.is_meta and bool(tensor.isinf().any())


@dataclass(frozen=True, eq=False)
class _Boxed:
    """Keeps fx from looking into a value while it maps arguments."""

    content: Any


def _plain_containers(arguments: Any) -> Any:
    if isinstance(arguments, _Boxed):
        return arguments.content
    if isinstance(arguments, slice):
        return slice(*map(_plain_containers, (arguments.start, arguments.stop, arguments.step)))
    if isinstance(arguments, (tuple, list)):
        items = [_plain_containers(item) for item in arguments]
        return tuple(items) if isinstance(arguments, tuple) else items
    if isinstance(arguments, dict):
        return {key: _plain_containers(item) for key, item in arguments.items()}
    return arguments


def _builds_an_output(node: fx.Node) -> bool:
    """Whether the node makes an object of the model's output: a dataclass, a named tuple, a dictionary of its own."""
    kind = node.target
    return isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, dict) or hasattr(kind, "_fields"))


def _looks_up(node: fx.Node, args: Any) -> bool:
    """Whether the node reads an item of a known container, whose items keep what is known of them."""
    return node.target is operator.getitem and isinstance(args[0], (tuple, list, dict))


@functools.cache
def _misfit(rule: Rule, count: int, names: tuple[str, ...]) -> str | None:
    """Why the rule cannot take so many arguments by position, and these by name; None if it can."""
    try:
        inspect.signature(rule).bind(None, *range(count), **dict.fromkeys(names))
    except TypeError as error:
        return f"called in a form that its rule does not know ({error})"
    return None


def _misshapen(output: Any, meta: Any) -> str | None:
    """Whether the axes that a rule gave its output have other sizes than the operator's own."""
    stated = [tuple(term.size for term in value.axes) for value in flatten_values(output)]
    made = [meta] if isinstance(meta, torch.Tensor) else pytree.tree_leaves(meta)
    found = [tuple(leaf.shape) for leaf in made if isinstance(leaf, torch.Tensor)]
    return f"its rule does not know this form (it puts out {found}, not {stated})" if stated != found else None


def _terms_of(leaf: Any) -> Iterator[Any]:
    if isinstance(leaf, (Extent, Derived)):
        yield from leaf.terms


def _argument_slots(node: fx.Node) -> Iterator[tuple[tuple[Any, ...], fx.Node]]:
    """Every node among the arguments with the path at which it stands."""

    def walk(item: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], fx.Node]]:
        if isinstance(item, fx.Node):
            yield path, item
        elif isinstance(item, (tuple, list)):
            for i, inner in enumerate(item):
                yield from walk(inner, (*path, i))
        elif isinstance(item, dict):
            for key, inner in item.items():
                yield from walk(inner, (*path, key))
        elif isinstance(item, slice):
            for key in ("start", "stop", "step"):
                yield from walk(getattr(item, key), (*path, key))

    yield from walk(tuple(node.args), ("args",))
    yield from walk(dict(node.kwargs), ("kwargs",))
