"""Closing the residual branches of a block, so that the block passes its input on unchanged.

The proof is a small abstract interpretation: each value is the block's input itself, exactly zero, or anything else.
At an addition of the input and something else, the last linear map of that something is set to zero. What comes out
must be the input itself; otherwise the block is not closed this way.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ops.pointwise import zero_keeping
from graphgrow.ops.registry import rule_of


class Known(Enum):
    """What is known of a value."""

    INPUT = "the input itself"
    ZERO = "zero"
    OTHER = "anything"


_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__iadd__")
_PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__", "__imul__")
_VIEWS = (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous",
    torch.flatten, torch.permute, torch.transpose, torch.reshape, torch.squeeze, torch.unsqueeze,
)  # fmt: skip
_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
)  # fmt: skip
_NOISE = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "StochasticDepth", "DropPath")
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
    own: Collection[str],
) -> list[str] | None:
    """The maps and norms that must be zero for a block to pass `stream` on; None where that cannot be shown.

    Args:
        module: the graph.
        nodes: of the block, in graph order.
        stream: the node that flows in.
        result: the node of the block that flows out.
        arriving: what will flow in in the place of `stream`.
        own: paths of the modules that belong to the block alone and may be set to zero.
    """
    closed: set[str] = set()
    for _ in range(len(nodes) + 1):
        known = _interpret(module, nodes, stream, arriving, closed)
        if known[result] is Known.INPUT:
            return sorted(closed)
        found = next((_last_map(module, side, own) for side in _open_sides(nodes, known)), None)
        if found is None or found in closed:
            return None
        closed.add(found)
    return None


def set_to_zero(module: nn.Module, path: str) -> None:
    """Set the weight and the bias of a map or norm to zero, in place."""
    part = module.get_submodule(path)
    with torch.no_grad():
        for name in ("weight", "bias"):
            if part._parameters.get(name) is not None:
                part.get_parameter(name).zero_()


def _interpret(
    module: fx.GraphModule, nodes: Sequence[fx.Node], stream: fx.Node, arriving: fx.Node, closed: Collection[str]
) -> dict[fx.Node, Known]:
    known: dict[fx.Node, Known] = {stream: Known.INPUT}
    for node in nodes:
        known[node] = _outcome(module, node, known, arriving, closed)
    return known


def _outcome(
    module: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Known], arriving: fx.Node, closed: Collection[str]
) -> Known:
    operands = [known.get(used, Known.OTHER) for used in node.args if isinstance(used, fx.Node)]
    if node.op == "call_module" and str(node.target) in closed:
        return Known.ZERO
    if _is(node, _ADDITIONS) and len(operands) == 2 and not node.kwargs:
        if Known.ZERO in operands:
            return operands[1 - operands.index(Known.ZERO)] if _same_shape(node, operands) else Known.OTHER
        return Known.OTHER
    if _is(node, _PRODUCTS):
        return Known.ZERO if Known.ZERO in operands else Known.OTHER
    first = operands[0] if operands else Known.OTHER
    if first is Known.ZERO and _keeps_zero(module, node):
        return Known.ZERO
    if first is Known.INPUT and _keeps_input(module, node, arriving):
        return Known.INPUT
    return Known.OTHER


def _same_shape(node: fx.Node, operands: Sequence[Known]) -> bool:
    """Whether the operand that is not zero has the shape of the sum: broadcasting would change it."""
    kept = node.args[1 - list(operands).index(Known.ZERO)]
    assert isinstance(kept, fx.Node)
    return bool(kept.meta["value"].shape == node.meta["value"].shape)


def _keeps_zero(module: fx.GraphModule, node: fx.Node) -> bool:
    part = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if part is not None and (isinstance(part, nn.Identity) or type(part).__name__ in _NOISE):
        return True
    if isinstance(part, _MAPS) and part.bias is None:
        return True
    return _is(node, _VIEWS) or rule_of(node, part) is zero_keeping


def _keeps_input(module: fx.GraphModule, node: fx.Node, arriving: fx.Node) -> bool:
    """Identity, or an idempotent activation of what has just gone through the same one."""
    part = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(part, nn.Identity):
        return True
    kind = _idempotent(module, node)
    return kind is not None and kind == _idempotent(module, arriving)


def _idempotent(module: fx.GraphModule, node: fx.Node) -> tuple[Any, ...] | None:
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


def _open_sides(nodes: Sequence[fx.Node], known: dict[fx.Node, Known]) -> list[fx.Node]:
    """At the first addition of the input and something else, that something."""
    for node in nodes:
        if _is(node, _ADDITIONS) and len(node.args) == 2:
            sides = [side for side in node.args if isinstance(side, fx.Node)]
            states = [known.get(side, Known.OTHER) for side in sides]
            if sorted(state.name for state in states) == ["INPUT", "OTHER"]:
                return [sides[states.index(Known.OTHER)]]
    return []


def _last_map(module: fx.GraphModule, node: fx.Node, own: Collection[str]) -> str | None:
    """The last linear map or norm in front of a value, behind operators that keep zero."""
    while True:
        if node.op == "call_module":
            part = module.get_submodule(str(node.target))
            affine = isinstance(part, _NORMS) and part._parameters.get("weight") is not None
            if affine or isinstance(part, _MAPS):
                return str(node.target) if str(node.target) in own else None
        if not (_is(node, _PRODUCTS) or _keeps_zero(module, node)):
            return None
        sources = [used for used in node.args if isinstance(used, fx.Node) and used.op != "get_attr"]
        if not sources:
            return None
        node = sources[0]


def _is(node: fx.Node, targets: Collection[Any]) -> bool:
    return node.op in ("call_function", "call_method") and node.target in targets
