"""Between which numbers the values of a part of a graph lie, whatever that part reads.

The analysis knows the bounds of each value where it stands in the model. A part that is to stand elsewhere too reads
other values there: what its place gives it is not to be relied on.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from graphgrow.ir.bounds import A_SIZE, UNBOUNDED, Bounds
from graphgrow.ir.value import Value
from graphgrow.ops.bounding import bounds_of, output_bounds

_DEPTH = 24  # steps back to which bounds are followed; what lies further back may be anything

_Known = Value | tuple[Value, ...]


class Ranges:
    """The bounds of nodes, worked out back to some sources, which may hold any numbers.

    What is no source and depends on none is followed as well: it is the same wherever the part stands.
    """

    def __init__(self, sources: Collection[fx.Node]) -> None:
        self._known: dict[fx.Node, _Known] = {node: Value((), node.name) for node in sources}
        self._sources = frozenset(sources)

    def of(self, argument: Any) -> Bounds:
        """The bounds of a node's tensor, or of a number."""
        found = self._value(argument, _DEPTH) if isinstance(argument, fx.Node) else argument
        return UNBOUNDED if isinstance(found, tuple) else bounds_of(found)

    def is_source(self, node: fx.Node) -> bool:
        """Whether the node is one of those that may hold any numbers."""
        return node in self._sources

    def _value(self, node: fx.Node, depth: int) -> _Known:
        if node not in self._known:
            self._known[node] = self._worked_out(node, depth) if depth else Value((), node.name)
        return self._known[node]

    def _worked_out(self, node: fx.Node, depth: int) -> _Known:
        if node.op not in ("call_function", "call_method", "call_module"):
            return Value((), node.name)
        if _is_size(node):
            return Value((), node.name, bounds=A_SIZE)
        known: Any = lambda used: self._value(used, depth - 1)  # noqa: E731
        args: Any = fx.node.map_arg(node.args, known)
        kwargs: Any = fx.node.map_arg(node.kwargs, known)
        if node.target is operator.getitem and isinstance(args[0], tuple):
            held, index = args[0], args[1]
            return held[index] if isinstance(index, int) and -len(held) <= index < len(held) else Value((), node.name)
        owner = node.graph.owning_module
        module = owner.get_submodule(str(node.target)) if node.op == "call_module" and owner is not None else None
        found = output_bounds(node, module, args, kwargs)
        if isinstance(found, tuple):
            return tuple(Value((), node.name, bounds=bounds) for bounds in found)
        return Value((), node.name, bounds=found)


def operator_name(node: fx.Node) -> str:
    """The operator's name: `exp` for torch.exp, x.exp() and x.exp_() alike; empty for modules."""
    if node.op not in ("call_function", "call_method"):
        return ""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    name = name.removeprefix("linalg_").removeprefix("special_").strip("_")
    return {"iadd": "add", "imul": "mul", "itruediv": "truediv", "ipow": "pow"}.get(name, name)


def _is_size(node: fx.Node) -> bool:
    """Whether a node is the size of an axis: of an empty one, no entry is computed."""
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        return isinstance(node.args[0].meta.get("value"), torch.Size) and isinstance(node.args[1], int)
    return node.op == "call_method" and node.target == "size" and isinstance(node.meta.get("value"), int)
