"""Where two graphs first part: nodes are told by what they do, so that equal graphs may have other names for them."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from graphgrow.capture.graphs.modes import EFFECTS
from graphgrow.capture.graphs.writes import is_inplace
from graphgrow.ir.layers_apart import layers_apart, tensors_apart
from graphgrow.ir.terms import leaves
from graphgrow.ir.value import Value
from graphgrow.layers import require_decision, require_dtypes
from graphgrow.network.network import Network

_SIMPLE = (bool, int, float, str, type(None), torch.dtype, torch.Size)
_ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg, torch.sym_int}
_SPLITS = {torch.split, "split"}
_NEW_AXES = {torch.unsqueeze, "unsqueeze"}
_DECISIONS = {require_decision, torch._assert}
_THERE = "in the class"


def parting(mine: fx.GraphModule, theirs: Network, base: fx.GraphModule | None = None) -> tuple[str, str] | None:
    """The first node of a graph that has no equal in another, and how they differ; None where the graphs are equal.

    Equal graphs call the same operators on the same values, with the same numbers, from their outputs and from what
    they do besides (checks, writes) back to their inputs; the modules that they call are of one class and have the same
    settings, and tensors have the same bits. A size that one of them computes is the number that the other has where it
    follows from the shapes of weights alone.

    Args:
        mine: the grown graph.
        theirs: that of the class.
        base: what the grown one has grown from. What the class decides where that does, and alike, may be missing in
            the grown one: growth takes away the checks of the sizes that it changes.

    Returns:
        The node's name (empty where the other graph does more), and what the other has instead.
    """
    return _Comparison(mine, theirs, mine if base is None else base).parting()


class _Comparison:
    def __init__(self, mine: fx.GraphModule, theirs: Network, base: fx.GraphModule) -> None:
        self._mine, self._theirs, self._base = mine, theirs.module, base
        self._sizes = WeightSizes(theirs)
        self._paired: dict[fx.Node, fx.Node] = {}
        self._taken: dict[fx.Node, fx.Node] = {}
        self._apart: dict[fx.Node, str] = {}

    def parting(self) -> tuple[str, str] | None:
        first, second = list(roots_of(self._mine)), list(roots_of(self._theirs))
        dtypes, dtypes_there = (_taken_out(roots, {require_dtypes}) for roots in (first, second))
        decisions, decisions_there = (_taken_out(roots, _DECISIONS) for roots in (first, second))
        for one, other in zip(first, second, strict=False):
            self._pair(one, other)
        self._pair_checks(dtypes, dtypes_there, self._mine)
        self._pair_checks(decisions, decisions_there, self._base)
        for node in self._mine.graph.nodes:
            if node in self._apart:
                return node.name, self._apart[node]
        if len(first) != len(second):
            longer, at = (first, min(len(first), len(second))) if len(first) > len(second) else (second, len(first))
            there = "not there in the class" if longer is first else "only there in the class"
            return longer[at].name if longer is first else "", f"`{longer[at].name}` is {there}"
        return None

    def _pair(self, one: fx.Node, other: fx.Node) -> None:
        """Compare two nodes, and all that they are worked out from."""
        waiting = [(one, other)]
        while waiting:
            first, second = waiting.pop()
            if first in self._paired or second in self._taken:
                once = self._paired.get(first) is second and self._taken.get(second) is first
                # a tensor may be fetched, and a size worked out, any number of times
                again = first.op == "get_attr" or (first.target in _ARITHMETIC and type(first.meta["value"]) is int)
                if not once and not again:
                    self._apart.setdefault(first, f"the class has `{second.name}` for it, which is another value")
                if once or not again:
                    continue
            self._paired[first], self._taken[second] = second, first
            apart = self._nodes_apart(first, second)
            if apart:
                self._apart[first] = apart
                continue
            pairs, apart = self._arguments(first, second)
            if apart:
                self._apart[first] = apart
            waiting += pairs

    def _pair_checks(self, checks: list[fx.Node], others: list[fx.Node], known: fx.GraphModule) -> None:
        """Pair the checks of a kind, each with one of the same value.

        The class may have more, of lines that decide alike in a graph that is known: the copy of a layer has none of
        those that stand behind its result.
        """
        for one in checks:
            found = next((other for other in others if self._alike(one, other)), None)
            if found is None:
                self._apart[one] = f"`{one.name}` is not there in the class"
                return
            others.remove(found)
            self._pair(one, found)
        kinds = {(node.target, str(node.args[1:])) for node in known.graph.nodes if node.op == "call_function"}
        more = next((other for other in others if (other.target, str(other.args[1:])) not in kinds), None)
        if more is not None:
            self._apart[next(reversed(self._mine.graph.nodes))] = f"`{more.name}` is only there in the class"

    def _alike(self, first: fx.Node, second: fx.Node) -> bool:
        """Whether two nodes are paired already, or compute the same of what is."""
        if first in self._paired or second in self._taken:
            return self._paired.get(first) is second
        if self._nodes_apart(first, second):
            return False
        pairs, apart = self._arguments(first, second)
        return not apart and all(self._alike(*pair) for pair in pairs)

    def _nodes_apart(self, first: fx.Node, second: fx.Node) -> str:
        here, there = called(self._mine, first), called(self._theirs, second)
        if here != there:
            return f"the class has {there} there, not {here}"
        if first.op == "call_module":
            mine, theirs = (m.get_submodule(str(n.target)) for m, n in ((self._mine, first), (self._theirs, second)))
            return layers_apart(mine, theirs, _THERE, modes=False)
        if first.op == "get_attr":
            held = [operator.attrgetter(str(n.target))(m) for m, n in ((self._mine, first), (self._theirs, second))]
            apart = tensors_apart(held[0], held[1], _THERE)
            return f"it {apart}" if apart else ""
        return ""

    def _arguments(self, first: fx.Node, second: fx.Node) -> tuple[list[tuple[fx.Node, fx.Node]], str]:
        """The nodes that two nodes read, side by side, and how what they are given differs."""
        given, taken = arguments_of(first), arguments_of(second)
        if len(given) != len(taken):
            return [], f"the class gives it {second.args}, not {first.args}"
        pairs = []
        for one, other in zip(given, taken, strict=True):
            if isinstance(one, fx.Node) and isinstance(other, fx.Node):
                pairs.append((one, other))
                continue
            number = self._sizes.of(other) if isinstance(other, fx.Node) else other
            if isinstance(one, fx.Node) or type(one) is not type(number) or one != number:
                return pairs, f"the class gives it {other}, not {one}"
        return pairs, ""


class WeightSizes:
    """The sizes that a graph computes from the shapes of its weights, and from axes of size 1 that it makes, alone.

    Args:
        network: the graph.
    """

    def __init__(self, network: Network) -> None:
        self._facts = network.analysis.facts
        self._of_weights = {group.space for group in network.groups}

    def of(self, node: fx.Node) -> Any:
        """The number that a node always is; None where it may be another on other inputs."""
        if node.target in _ARITHMETIC:
            known = all(self.of(used) is not None for used in node.all_input_nodes)
            return node.meta["value"] if known else None
        source, axis = _size_of(node)
        output = self._facts[source].output if source is not None else None
        if source is None or not isinstance(output, Value) or not isinstance(axis, int):
            return None
        if _is_made(source, axis % len(output.axes)):
            return 1
        return node.meta["value"] if set(leaves(output.axes[axis])) <= self._of_weights else None


def _size_of(node: fx.Node) -> tuple[fx.Node | None, Any]:
    """The tensor and the axis of x.shape[axis] and x.size(axis)."""
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        return node.args[0], node.args[1]  # type: ignore[return-value]
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        shape = node.args[0]
        whole = (shape.target is getattr and shape.args[1] == "shape") or (
            shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1
        )
        if whole:
            return shape.args[0], node.args[1]  # type: ignore[return-value]
    return None, None


def _is_made(tensor: fx.Node, axis: int) -> bool:
    """Whether an axis, counted from the front, is one that `unsqueeze` makes, also in a part of what that puts out."""
    while tensor.args:
        args: Any = tensor.args
        if tensor.target in _NEW_AXES:
            made = (args[1] if len(args) > 1 else tensor.kwargs["dim"]) % tensor.meta["value"].dim()
            if axis == made:
                return True
            axis -= axis > made
        elif tensor.target is operator.getitem and args[0].target in _SPLITS:
            args, named = args[0].args, dict[str, Any](args[0].kwargs)
            *_, cut = _of_split(*args, **named)
            if axis == cut:
                return False
        else:
            return False
        tensor = args[0]
    return False


def roots_of(module: fx.GraphModule) -> Iterator[fx.Node]:
    """Inputs, outputs, and what a graph does besides."""
    for node in module.graph.nodes:
        besides = not node.users and (node.target in EFFECTS or is_inplace(node, module) or node.op == "call_module")
        if node.op in ("placeholder", "output") or besides:
            yield node


def _taken_out(roots: list[fx.Node], targets: set[Any]) -> list[fx.Node]:
    """The nodes among some that call one of a few functions, which the others are without from now on."""
    found = [node for node in roots if node.target in targets]
    roots[:] = [node for node in roots if node.target not in targets]
    return found


def called(module: fx.GraphModule, node: fx.Node) -> str:
    """What a node calls, in words; a split is one operator under each of its names."""
    if node.op == "call_module":
        return f"a {type(module.get_submodule(str(node.target))).__name__}"
    if node.target in _SPLITS:
        return "split"
    if node.op == "call_function":
        return f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', node.target)}"
    return node.op if node.op in ("get_attr", "output") else str(node.target)


def arguments_of(node: fx.Node) -> list[Any]:
    """What a node is given, one by one, with the lengths of lists and the names of what is given by name.

    A split is given its tensor, the size of its parts (one number where they are even), and a positive axis, however
    these are written.
    """
    given: list[Any] = []
    if node.target in _SPLITS:
        args: Any = node.args
        named: dict[str, Any] = dict(node.kwargs)
        _flatten(_of_split(*args, **named), given)
    else:
        named = dict(sorted(node.kwargs.items()))
        _flatten((node.args, *named, *named.values()), given)
    return given


def _of_split(
    tensor: fx.Node, split_size: Any = None, dim: int = 0, split_size_or_sections: Any = None
) -> tuple[fx.Node, Any, int]:
    sizes = split_size_or_sections if split_size is None else split_size
    if isinstance(sizes, (tuple, list)) and all(type(size) is int and size == sizes[0] for size in sizes):
        sizes = sizes[0]  # it divides the axis, or torch would refuse the list
    return tensor, sizes, dim % tensor.meta["value"].dim()


def _flatten(value: Any, into: list[Any]) -> None:
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if isinstance(value, dict):
        value = (*value.keys(), *value.values())
    if isinstance(value, (tuple, list)):
        into.append(len(value))
        for item in value:
            _flatten(item, into)
    else:
        into.append(value)


def settings_of(module: nn.Module) -> dict[str, Any]:
    """The numbers, texts and flags that a module keeps in attributes, those of its parts included; not its mode."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name != "training" and (isinstance(value, _SIMPLE) or _of_simple(value))
    }


def _of_simple(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(item, _SIMPLE) for item in value)
