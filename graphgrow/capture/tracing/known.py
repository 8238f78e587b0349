"""Values in which no input has a part: a forward may decide by what it makes of sizes, constants and buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.graphs.writes import Write, storages_of

_AFTER_A_PATTERN = {
    "new_zeros", "new_ones", "new_full", "new_tensor", torch.zeros_like, torch.ones_like, torch.full_like,
}  # fmt: skip


class Fetching(Protocol):
    """What a tracer offers where a graph is run while it is recorded."""

    @property
    def constants(self) -> dict[str, torch.Tensor]:
        """Tensors that the forward makes itself, by the name under which the graph fetches them."""
        ...

    def held_at(self, path: str) -> Any:
        """What the model holds at a path."""
        ...

    def by_itself(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """What an operator returns, run for itself and not recorded."""
        ...


class Holder(Fetching, Protocol):
    """What a tracer offers here, besides.

    Attributes:
        writes: the nodes that overwrite memory.
        device_type: of the model and its inputs; empty where they are on several.
    """

    writes: dict[fx.Node, Write]
    device_type: str


def known_value(node: fx.Node, holder: Holder) -> torch.Tensor | None:
    """The value of a tensor, where neither inputs nor parameters nor random numbers have a part in it.

    Sizes are those of the example. None as well where memory that it is made of has been overwritten, and where a leaf
    has a part in it.
    """
    order = _sources(node)
    made = storages_of([item.meta["value"] for item in order])
    if any(write.target in order or made & storages_of(write.target.meta["value"]) for write in holder.writes.values()):
        return None
    values: dict[fx.Node, Any] = {}
    state = torch.default_generator.get_state()
    for item in order:
        if not _is_open(item, holder):
            return None
        values[item] = _value(item, values, holder)
    if not torch.equal(state, torch.default_generator.get_state()):
        torch.default_generator.set_state(state)
        return None
    found = values[node]
    return found if isinstance(found, torch.Tensor) and not found.is_meta and not bool(found.isnan().any()) else None


def fetched(name: str, holder: Fetching) -> Any:
    """What a graph fetches by a name: a tensor that the forward has made, as it was then, or one of the model's."""
    return holder.constants[name] if name in holder.constants else holder.held_at(name)


def memory_behind(node: fx.Node, holder: Holder) -> frozenset[int]:
    """The storages of those of the model's own tensors that have a part in a value."""
    held = (item for item in _sources(node) if item.op == "get_attr" and str(item.target) not in holder.constants)
    return storages_of([item.meta["value"] for item in held])


def _sources(node: fx.Node) -> dict[fx.Node, None]:
    """A node and all whose values have a part in it, in the order of the graph; of a size alone the number is asked."""
    found, pending = {node}, [node]
    while pending:
        item = pending.pop()
        for before in _read(item) if _holds_tensor(item) else ():
            if before not in found:
                found.add(before)
                pending.append(before)
    return {item: None for item in node.graph.nodes if item in found}


def _read(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values have a part in one's: not the pattern of which dtype and sizes alone are taken."""
    if node.target not in _AFTER_A_PATTERN or not node.args:
        return node.all_input_nodes
    found: list[fx.Node] = []
    fx.node.map_arg((node.args[1:], node.kwargs), found.append)
    return found


def _holds_tensor(node: fx.Node) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(node.meta["value"]))


def _is_open(node: fx.Node, holder: Holder) -> bool:
    """Whether a node's value follows from those in front of it, or is the model's own."""
    if not _holds_tensor(node) or node.op in ("call_function", "call_method"):
        return True
    name = str(node.target)
    return node.op == "get_attr" and (name in holder.constants or not isinstance(holder.held_at(name), nn.Parameter))


def _value(node: fx.Node, values: Mapping[fx.Node, Any], holder: Holder) -> Any:
    if not _holds_tensor(node):
        return pytree.tree_map(lambda leaf: _placed(leaf, holder), node.meta["value"])
    if node.op == "get_attr":
        return fetched(str(node.target), holder)
    args, kwargs = fx.node.map_arg(
        (node.args, node.kwargs), lambda item: values[item] if item in values else _pattern(item, holder)
    )
    return holder.by_itself(node.op, node.target, args, kwargs)


def _pattern(node: fx.Node, holder: Holder) -> torch.Tensor:
    return torch.empty_like(node.meta["value"], device=holder.device_type or "cpu")


def _placed(leaf: Any, holder: Holder) -> Any:
    """A device as it is in the model, whose examples are on the meta device."""
    return torch.device(holder.device_type or "cpu") if leaf == torch.device("meta") else leaf
