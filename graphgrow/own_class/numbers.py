"""The numbers of a model's attributes that a graph grown from it has other values of."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphgrow.errors import ExportError
from graphgrow.own_class.marked import MarkedFloat, MarkedInt, Origin
from graphgrow.own_class.parting import arguments_of, called, settings_of


def numbers_of(grown: fx.GraphModule, base: fx.GraphModule) -> dict[Origin, Any]:
    """By attribute of the model, the number that the grown graph has where the base's reads that attribute.

    Args:
        grown: the grown graph.
        base: the graph that it has grown from, captured of a model whose numbers are marked.

    Raises:
        ExportError: if two operators want different numbers of one attribute, as where layers that share a
            configuration have grown unevenly.
    """
    found: dict[Origin, Any] = {}
    readers: dict[Origin, str] = {}
    now = {node.name: node for node in grown.graph.nodes}
    for node in base.graph.nodes:
        twin = now.get(node.name)
        if twin is None or not twin.users or called(grown, twin) != called(base, node):
            continue
        before, after = _given(node, base), _given(twin, grown)
        if len(before) != len(after):
            continue
        for number, value in zip(before, after, strict=True):
            if not isinstance(number, (MarkedInt, MarkedFloat)) or not isinstance(value, (int, float)):
                continue
            origin = number.origin
            if found.setdefault(origin, value) != value:
                raise ExportError(
                    f"`{origin}` would have to be {found[origin]} for `{readers[origin]}` and {value} for `{node.name}`"
                )
            readers.setdefault(origin, node.name)
    return found


def _given(node: fx.Node, module: fx.GraphModule) -> list[Any]:
    """The arguments of a node one by one, and the settings of the module that it calls."""
    given = arguments_of(node)
    if node.op == "call_module":
        fx.node.map_aggregate(list(settings_of(module.get_submodule(str(node.target))).values()), given.append)
    return given
