"""Which nodes compute from the numbers of a graph's inputs or parameters, and not from their sizes alone."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

_FORM = frozenset(
    {"shape", "size", "dim", "ndim", "numel", "dtype", "device", "new_ones", "new_zeros", "new_full", "new_empty"}
)


def nodes_fed(graph: fx.Graph) -> frozenset[fx.Node]:
    """The inputs, and all nodes that their numbers reach."""
    return nodes_reached(graph, lambda node: node.op == "placeholder")


def nodes_reached(graph: fx.Graph, begins: Callable[[fx.Node], bool]) -> frozenset[fx.Node]:
    """The nodes that `begins` names, and all that their numbers reach."""
    reached: set[fx.Node] = set()
    for node in graph.nodes:
        if begins(node) or not reached.isdisjoint(numbers_read(node)):
            reached.add(node)
    return frozenset(reached)


def numbers_read(node: fx.Node) -> list[fx.Node]:
    """The nodes whose numbers a node reads: not that of which it asks the shape, dtype or device alone."""
    name = node.args[1] if node.target is getattr else getattr(node.target, "__name__", node.target)
    form = node.op != "call_module" and isinstance(name, str) and (name in _FORM or name.endswith("_like"))
    return [used for used in node.all_input_nodes if not (form and used is node.args[0])]
