"""A graph as rows that pickle: fx pickles code alone, and has to trace it again to have a graph.

Tracing without examples fails where a size cuts a parameter (`pe[:, : x.shape[1]]`), and loses the names of nodes and
the modules that they stand in, by which sites are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import torch
from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket

from graphgrow.ir.meta import FIXED, OVERWRITTEN, STACK

Row = tuple[str, Any, str, Any, Any, dict[str, Any]]
_KEPT = (FIXED, OVERWRITTEN)


@dataclass(frozen=True)
class _At:
    """The node of a row."""

    row: int


@dataclass(frozen=True)
class _Operator:
    """An operator of torch.library by its path below `torch.ops`."""

    path: str


def to_rows(graph: fx.Graph) -> list[Row]:
    """For each node its operator, target, name, arguments, and what else is known of it but its example value."""
    rows: list[Row] = []
    places: dict[fx.Node, _At] = {}
    for number, node in enumerate(graph.nodes):
        arguments: Any = fx.node.map_arg((node.args, dict(node.kwargs)), cast("Any", places.__getitem__))
        args, kwargs = fx.node.map_aggregate(arguments, _to_data)
        rows.append((node.op, _to_data(node.target), node.name, args, kwargs, _known(node)))
        places[node] = _At(number)
    return rows


def from_rows(rows: list[Row]) -> fx.Graph:
    """The graph of these rows."""
    graph = fx.Graph()
    nodes: list[fx.Node] = []

    def restored(item: Any) -> Any:
        if isinstance(item, _At):
            return nodes[item.row]
        return attrgetter(item.path)(torch.ops) if isinstance(item, _Operator) else item

    for op, target, name, args, kwargs, known in rows:
        held = fx.node.map_aggregate((args, kwargs), restored)
        node = graph.create_node(op, restored(target), *held, name=name)
        node.meta.update(known)
        nodes.append(node)
    return graph


def _known(node: fx.Node) -> dict[str, Any]:
    known = {key: item for key, item in node.meta.items() if key in _KEPT or isinstance(item, str)}
    stack = node.meta.get(STACK)
    return (
        known if stack is None else {**known, STACK: {key: (path, _named(kind)) for key, (path, kind) in stack.items()}}
    )


def _named(kind: Any) -> Any:
    """A class of modules by its name: it may have been made as it was needed, or be known to the writer alone.

    All that is asked of it is whether it is a plain nn.Sequential, which pickles.
    """
    return kind if kind is nn.Sequential or not isinstance(kind, type) else f"{kind.__module__}.{kind.__qualname__}"


def _to_data(item: Any) -> Any:
    if isinstance(item, OpOverload):
        return _Operator(f"{item.namespace}.{item.__name__}")
    if isinstance(item, OpOverloadPacket):
        return _Operator(item._qualified_op_name.replace("::", "."))
    return item
