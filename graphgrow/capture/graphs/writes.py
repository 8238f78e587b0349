"""Which nodes overwrite memory, and whose: seen on the example values, which share storages and count their writes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.model.frames import models_line
from graphgrow.errors import CaptureError
from graphgrow.ir.meta import MetaRunner
from graphgrow.layers import set_item

PLAIN: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
    operator.ilshift: operator.lshift,
    operator.irshift: operator.rshift,
    operator.imatmul: operator.matmul,
}
"""Of each augmented assignment, the operator that makes a new tensor instead."""


@dataclass(frozen=True)
class Write:
    """One node that overwrites memory: the argument that it writes into, and the line of the user's code."""

    target: fx.Node
    line: str


def is_inplace(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node overwrites its first argument."""
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        if name.startswith("__i"):
            return getattr(operator, name, None) in PLAIN
        return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    written = node.target in (set_item, operator.setitem) or node.target in PLAIN
    return written or bool(node.kwargs.get("inplace")) or (name.endswith("_") and name[:1] != "_")


def storages_of(value: Any) -> frozenset[int]:
    """The storages that hold the tensors within a nested value."""
    tensors = (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))
    return frozenset(tensor.untyped_storage()._cdata for tensor in tensors)


def run_watched(node: fx.Node, run: Callable[[], Any]) -> tuple[Any, Write | None]:
    """Run a node whose arguments have their example values, and see whether it writes into one of them.

    Raises:
        CaptureError: if it writes into several, or changes the shape of one.
    """
    before = [(used, tensor, tensor._version, tensor.shape) for used, tensor in _tensors(node.all_input_nodes)]
    value = run()
    for used, tensor, _, shape in before:
        if tensor.shape != shape:
            raise CaptureError(
                f"{_name(node)} changes the shape of `{used.name}` in place, from {tuple(shape)} to "
                f"{tuple(tensor.shape)}; use the operator that returns a new tensor"
            )
    written = [used for used, tensor, version, _ in before if tensor._version != version]
    if not written:
        return value, None
    named = [node.kwargs.get("out"), *node.args[:1], written[0]]
    target = next(one for one in named if isinstance(one, fx.Node) and one in written)
    if {*written} - {target} and len(storages_of([used.meta["value"] for used in written])) > 1:
        raise CaptureError(f"{_name(node)} writes into several tensors at once; assign what it returns instead")
    if not isinstance(value, torch.Tensor) or storages_of(value) != storages_of(target.meta["value"]):
        raise CaptureError(f"{_name(node)} writes into `{target.name}` and does not return it")
    return value, Write(target, models_line())


def watch(graph: fx.Graph, root: nn.Module) -> dict[fx.Node, Write]:
    """Give every node its example value, and find the nodes that write.

    Args:
        graph: its placeholders have their values already.
        root: where its modules and tensors are.

    Raises:
        CaptureError: as `run_watched`; if a placeholder has no value.
    """
    runner, writes, fetched = MetaRunner(root), dict[fx.Node, Write](), dict[str, Any]()
    for node in graph.nodes:
        if node.op == "placeholder":
            if "value" not in node.meta:
                raise CaptureError(f"the graph overwrites tensors in place, and its input `{node.name}` is not known")
        elif node.op == "get_attr":
            node.meta["value"] = fetched.setdefault(str(node.target), runner.run_node(node))
        elif node.op != "output":
            if node.target is operator.setitem:  # which returns nothing
                node.target = set_item
            node.meta["value"], write = run_watched(node, functools.partial(runner.run_node, node))
            if write is not None:
                writes[node] = write
    return writes


def _tensors(nodes: Iterable[fx.Node]) -> list[tuple[fx.Node, torch.Tensor]]:
    return [
        (used, leaf)
        for used in nodes
        for leaf in pytree.tree_leaves(used.meta.get("value"))
        if isinstance(leaf, torch.Tensor)
    ]


def _name(node: fx.Node) -> str:
    return f"`{node.target if isinstance(node.target, str) else getattr(node.target, '__name__', node.target)}`"
