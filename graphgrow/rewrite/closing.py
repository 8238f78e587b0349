"""Closing the residual branches of a block, so that the block passes its input on unchanged.

The proof is a small abstract interpretation: each value is the block's input itself (or its numbers in another shape,
as tokens in one row), exactly zero, or anything else. At an addition of the input and something else, the last linear
map of that something is set to zero. What comes out must be the input itself; otherwise the block is not closed this
way. It holds for finite values: `Region` refuses blocks whose operators might overflow.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ir.called import called_module
from graphgrow.layers import Gate, RootMeanSquareNorm
from graphgrow.network.memory import holds_tensor, memory_roots, written
from graphgrow.network.neighbours import parameters_of
from graphgrow.ops.noise import dropout_module, stochastic_depth
from graphgrow.ops.pointwise import zero_keeping
from graphgrow.ops.registry import class_name, rule_of
from graphgrow.rewrite.relaid import has_shape_of, keeps_order
from graphgrow.rewrite.zeros import holds_only


class Known(Enum):
    """What is known of a value."""

    INPUT = "the input itself"
    RELAID = "the input in another shape, in the same order"
    ZERO = "zero"
    OTHER = "anything"


_PASSED = (Known.INPUT, Known.RELAID)
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__iadd__")
_DIFFERENCES = (operator.sub, operator.isub, torch.sub, "sub", "sub_", "__sub__", "__isub__")
_PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__", "__imul__")
_QUOTIENTS = (operator.truediv, operator.itruediv, torch.div, "div", "div_", "__truediv__", "__itruediv__")
_VIEWS = (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "t",
    torch.flatten, torch.permute, torch.transpose, torch.reshape, torch.squeeze, torch.unsqueeze, torch.t,
    operator.getitem, "roll", torch.roll, "to", "type_as",
)  # fmt: skip
_TURNED = ("T", "mT", "H", "mH")
_TURNS = ("t", torch.t, "transpose", torch.transpose, "permute", torch.permute)
_VIEW_MODULES = ("Identity", "Flatten", "Unflatten", "Permute")  # of torch.nn, and torchvision's
# By exact class: a subclass may do more than its parent. The second linear map is the output of nn.MultiheadAttention.
_MAPS = (
    nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
)  # fmt: skip
# Maps as functions, over parameters that no layer has to itself: the places of input, weight and bias.
_FUNCTIONS: Mapping[Any, tuple[tuple[str, int], ...]] = {
    **dict.fromkeys((F.linear, F.conv1d, F.conv2d, F.conv3d), (("input", 0), ("weight", 1), ("bias", 2))),
    **dict.fromkeys((torch.addmm, "addmm"), (("input", 1), ("weight", 2), ("bias", 0))),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.mm, "matmul", "mm"), (("input", 0), ("weight", 1))),
}
_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    RootMeanSquareNorm,
)  # fmt: skip
_NORM_AND_ACTIVATION = "timm.layers.norm_act.BatchNormAct2d"
_NOISE = (dropout_module, stochastic_depth)
# With f'(0) = 0: a map set to zero in front of one would never get a gradient.
_FLAT_AT_ZERO = (
    nn.ReLU, nn.ReLU6, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, F.relu, F.relu6, F.relu_, torch.relu, torch.relu_,
    torch.abs, torch.square, torch.sign, "relu", "relu_", "abs", "square", "sign",
)  # fmt: skip
_IDEMPOTENT = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
_IDEMPOTENT_FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, torch.relu: nn.ReLU, "relu": nn.ReLU, "relu_": nn.ReLU, torch.relu_: nn.ReLU, F.relu6: nn.ReLU6,
}  # fmt: skip


def close_branches(
    module: fx.GraphModule,
    nodes: Sequence[fx.Node],
    stream: fx.Node,
    result: fx.Node,
    arriving: fx.Node,
    path: str,
) -> list[str] | None:
    """What must be zero for a block to pass `stream` on: paths of maps and norms, and names of bare parameters.

    None where it cannot be shown that anything would do.

    What is found depends on the structure alone, never on the values of weights.

    Args:
        module: the graph.
        nodes: of the block, in graph order.
        stream: the node that flows in.
        result: the node of the block that flows out.
        arriving: what will flow in in the place of `stream`.
        path: of the block's module. What lies below it, is used once, and shares no parameter may be set to zero.
    """
    free, roots = _untied(module, path), memory_roots(nodes, module)
    closed: set[str] = set()
    for _ in range(len(nodes) + 1):
        walk = _Walk(module, stream, arriving, roots, lambda node: str(node.target) in closed)
        walk.through(nodes)
        if walk.known[result] is Known.INPUT:
            return sorted(closed)
        maps = (targets for side in walk.open_sides for targets in _last_map(module, side, free))
        found = next((targets for targets in maps if not targets <= closed), None)
        if found is None:
            return None
        closed.update(found)
    return None


def open_ones(
    module: fx.GraphModule,
    nodes: Sequence[fx.Node],
    stream: fx.Node,
    result: fx.Node,
    arriving: fx.Node,
    closings: Sequence[str],
) -> list[str]:
    """Those closings that are still to be set to zero, where others are (or their branch has another zero factor).

    A second zero in a branch, in front of a layer scale of zero say, would leave both without a gradient for ever.

    Args:
        module: the graph.
        nodes: as in `close_branches`.
        stream: as there.
        result: as there.
        arriving: as there.
        closings: what that found.
    """
    zeros, roots = {node for node in nodes if _is_zero(module, node)}, memory_roots(nodes, module)
    kept = list(closings)
    for target in closings:
        closed = zeros | {node for node in nodes if str(node.target) in kept and str(node.target) != target}
        walk = _Walk(module, stream, arriving, roots, closed.__contains__)
        walk.through(nodes)
        if walk.known[result] is Known.INPUT:
            kept.remove(target)
    return kept


def set_to_zero(module: nn.Module, target: str) -> None:
    """Set the weight and the bias of a map or norm so that it puts out zero, or a parameter of that name to zero."""
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name in (target, f"{target}.weight", f"{target}.bias"):
            if name in parameters:
                parameters[name].fill_(-_offset(module.get_submodule(name.rpartition(".")[0])))


def zero_values(module: fx.GraphModule) -> set[fx.Node]:
    """The nodes that put out exactly zero, whatever the finite inputs, with the weights as they are now."""
    roots = memory_roots(module.graph.nodes, module)
    walk = _Walk(module, None, None, roots, lambda node: _is_zero(module, node))
    walk.through(list(module.graph.nodes))
    return {node for node, known in walk.known.items() if known is Known.ZERO}


def is_addition(node: fx.Node) -> bool:
    """Whether a node adds two values."""
    return _is(node, _ADDITIONS) and len(node.args) == 2 and not node.kwargs


@dataclass
class _Walk:
    """One pass of the interpretation through the nodes of a block.

    Attributes:
        known: what is known of each value.
        open_sides: what is added to the input, at the additions whose sum is not known to be the input.
    """

    module: fx.GraphModule
    stream: fx.Node | None
    arriving: fx.Node | None
    roots: Mapping[fx.Node, frozenset[fx.Node]]
    closed: Callable[[fx.Node], bool]
    known: dict[fx.Node, Known] = field(default_factory=dict)
    open_sides: list[fx.Node] = field(default_factory=list)

    def through(self, nodes: Sequence[fx.Node]) -> None:
        """Interpret nodes in graph order."""
        if self.stream is not None:
            self.known[self.stream] = Known.INPUT
        for node in nodes:
            outcome = self._outcome(node)
            for target in written(node, self.module):
                self._forget(target, outcome)
            self.known[node] = outcome

    def _forget(self, target: fx.Node, outcome: Known) -> None:
        """What shares memory with an overwritten value is no longer what it was."""
        memory = self.roots.get(target, frozenset({target}))
        for value, known in self.known.items():
            if known is not outcome and self.roots.get(value, frozenset({value})) & memory:
                self.known[value] = Known.OTHER

    def _of(self, value: Any) -> Known:
        return self.known.get(value, Known.OTHER) if isinstance(value, fx.Node) else Known.OTHER

    def _outcome(self, node: fx.Node) -> Known:
        if node.op in ("call_module", "get_attr") and self.closed(node):
            return Known.ZERO
        if _is(node, (*_ADDITIONS, *_DIFFERENCES)):
            return self._sum(node)
        if _is(node, _PRODUCTS):
            return Known.ZERO if Known.ZERO in map(self._of, node.args) else Known.OTHER
        if _is(node, _FUNCTIONS):
            given = _operands(node)
            bias, factors = given.pop("bias", None), given.values()
            closed = Known.ZERO in map(self._of, factors) and (bias is None or self._of(bias) is Known.ZERO)
            return Known.ZERO if closed else Known.OTHER
        first = self._of(node.args[0]) if node.args else Known.OTHER
        if first is Known.ZERO and _keeps_zero(self.module, node):
            return Known.ZERO
        if first in _PASSED and keeps_order(node):
            assert self.stream is not None  # or nothing would be the input
            back = has_shape_of(node, self.stream.meta["value"], lambda value: self._of(value) is Known.INPUT)
            return Known.INPUT if back else Known.RELAID
        return first if first in _PASSED and _keeps_input(self.module, node, self.arriving) else Known.OTHER

    def _sum(self, node: fx.Node) -> Known:
        """A zero leaves the other operand as it is, if that has the shape of the sum: broadcasting would change it.

        Of a difference only the second operand may be the zero.
        """
        if len(node.args) != 2 or node.kwargs:
            return Known.OTHER
        orders = (node.args[::-1],) if _is(node, _DIFFERENCES) else (node.args[::-1], node.args)
        for zero, kept in orders:
            if self._of(zero) is Known.ZERO and isinstance(kept, fx.Node) and _alike(kept, node):
                return self._of(kept)
        for side, passed in orders:
            if self._of(passed) in _PASSED and isinstance(side, fx.Node) and self._of(side) is Known.OTHER:
                self.open_sides.append(side)
        return Known.OTHER


def _alike(value: fx.Node, total: fx.Node) -> bool:
    mine, whole = value.meta["value"], total.meta["value"]
    return bool(mine.shape == whole.shape and mine.dtype == whole.dtype)


def _keeps_zero(module: fx.GraphModule, node: fx.Node) -> bool:
    part = called_module(module, node)
    if part is not None and (type(part).__name__ in _VIEW_MODULES or rule_of(node, part) in _NOISE):
        return True
    if part is not None and type(part) in _MAPS and part._parameters.get("bias") is None:
        return True
    if isinstance(part, nn.Hardtanh):
        return part.min_val <= 0 <= part.max_val
    return _is(node, _VIEWS) or _is_turned(node) or _is_over_a_number(node) or rule_of(node, part) is zero_keeping


def _is_turned(node: fx.Node) -> bool:
    return node.target is getattr and node.args[1] in _TURNED


def turned_from(node: fx.Node) -> fx.Node:
    """The value of which a node is the transpose, as the weight in `x @ weight.T`; the node itself where it is none."""
    while (_is_turned(node) or _is(node, _TURNS)) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _is_over_a_number(node: fx.Node) -> bool:
    """A quotient by a number other than zero."""
    if not _is(node, _QUOTIENTS) or len(node.args) != 2 or node.kwargs:
        return False
    return isinstance(node.args[1], int | float) and node.args[1] != 0


def _keeps_input(module: fx.GraphModule, node: fx.Node, arriving: fx.Node | None) -> bool:
    """Identity, or an idempotent activation of what has just gone through the same one."""
    part = called_module(module, node)
    if type(part) is nn.Identity:
        return True
    kind = idempotent_kind(module, node)
    return kind is not None and arriving is not None and kind == idempotent_kind(module, arriving)


def idempotent_kind(module: fx.GraphModule, node: fx.Node) -> tuple[Any, ...] | None:
    """The kind of an activation f with f(f(x)) = f(x), with its limits."""
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        if type(part) not in _IDEMPOTENT:
            return None
        limits = (part.min_val, part.max_val) if isinstance(part, nn.Hardtanh) else ()
        return (type(part), *limits)
    kind = _IDEMPOTENT_FUNCTIONS.get(node.target) if node.op in ("call_function", "call_method") else None
    if kind is nn.ReLU6:
        return (kind, 0.0, 6.0)
    return None if kind is None else (kind,)


def _last_map(module: fx.GraphModule, node: fx.Node, own: set[str]) -> list[set[str]]:
    """The last linear maps or norms in front of a value, behind operators that keep zero and let its gradient through.

    Of a product it is enough to close one factor; that of the first factor comes first, and a factor that is a
    parameter itself (the weight of a norm that is written out) last. Of a sum (of parallel branches) each operand has
    to be closed.

    Returns:
        For each map what is set to zero: its path, or the names of its weight and bias where it is a function.
    """
    found: list[set[str]] = []
    bare: list[set[str]] = []
    pending = [node]
    while pending:
        current = pending.pop()
        if current.op == "call_module" and _can_be_closed(module.get_submodule(str(current.target))):
            found += [{str(current.target)}] if str(current.target) in own else []
            continue
        if _is(current, _FUNCTIONS):
            held = {str(turned_from(part).target) for name, part in _operands(current).items() if name != "input"}
            found += [held] if held and held <= own else []
            continue
        if _is(current, _PRODUCTS):
            factors = [used for used in current.args if isinstance(used, fx.Node)]
            bare += [{str(used.target)} for used in factors if used.op == "get_attr" and str(used.target) in own]
            pending += reversed(factors)
        elif _is(current, (*_ADDITIONS, *_DIFFERENCES)):
            terms = [used for used in current.args if isinstance(used, fx.Node)]
            pending += reversed([used for used in terms if used.op != "get_attr"])
            biases = [str(used.target) for used in terms if used.op == "get_attr"]  # of a map that is written out
            found += [{name} for name in biases if name in own]
        elif _keeps_zero(module, current) and not _is_flat_at_zero(module, current):
            pending += [used for used in current.args[:1] if isinstance(used, fx.Node)]
    return found + bare


def _can_be_closed(part: nn.Module) -> bool:
    """Whether a module puts out zero when its weight and bias are zero."""
    if class_name(type(part)) == _NORM_AND_ACTIVATION:
        inner = (part.get_submodule("act"), part.get_submodule("drop"))
        return part._parameters.get("weight") is not None and all(type(p) is nn.Identity for p in inner)
    return type(part) in _MAPS or (type(part) in _NORMS and part._parameters.get("weight") is not None)


def _is_flat_at_zero(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))) in _FLAT_AT_ZERO
    return _is(node, _FLAT_AT_ZERO)


def _operands(node: fx.Node) -> dict[str, fx.Node]:
    """Input, weight and bias of a map that is written as a function."""
    places = _FUNCTIONS[node.target]
    given = {name: node.args[at] if at < len(node.args) else node.kwargs.get(name) for name, at in places}
    return {name: value for name, value in given.items() if isinstance(value, fx.Node)}


def _untied(module: fx.GraphModule, path: str) -> set[str]:
    """The modules and parameters below a path whose parameters one node of the graph holds, and whose numbers it reads.

    Whoever asks for a parameter's dtype or shape alone does not count.
    """
    uses: dict[int, int] = {}
    below: dict[str, list[nn.Parameter]] = {}
    for node in module.graph.nodes:
        held = parameters_of(module, node)
        times = sum(map(holds_tensor, node.users)) if node.op == "get_attr" else 1
        if not times:
            continue
        for parameter in held:
            uses[id(parameter)] = uses.get(id(parameter), 0) + times
        if held and str(node.target).startswith(f"{path}."):
            below[str(node.target)] = held
    return {target for target, held in below.items() if all(uses[id(parameter)] == 1 for parameter in held)}


def _is_zero(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node puts out zero with the weights as they are now."""
    part = called_module(module, node)
    if part is not None and not _can_be_closed(part) and type(part) is not Gate:
        return False
    held = parameters_of(module, node)
    return bool(held) and all(not p.is_meta and holds_only(p.detach(), -_offset(part)) for p in held)


def _offset(part: nn.Module | None) -> float:
    """What a module adds to its weight before it multiplies: a norm that scales by 1 + w is closed at w = -1."""
    return part.offset if isinstance(part, RootMeanSquareNorm) else 0.0


def _is(node: fx.Node, targets: Collection[Any]) -> bool:
    return node.op in ("call_function", "call_method") and node.target in targets
