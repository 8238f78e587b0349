"""Where the units of an ancestor lie in a grown network, over all the steps between them."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.ir.positions import Kept, Recurring, positions_along
from graphgrow.network.network import Step

Places = Mapping[str, Mapping[int, Kept]]


def compose(parts: Sequence[Places]) -> dict[str, dict[int, Kept]]:
    """Follow old positions through several steps: a unit at j goes to second[first[j]]; -1, gone, stays -1."""
    total: dict[str, dict[int, Kept]] = {}
    for places in parts:
        for name, axes in places.items():
            mine = total.setdefault(name, {})
            for axis, kept in axes.items():
                earlier = mine.get(axis)
                mine[axis] = kept if earlier is None else _after(earlier, kept)
    return total


def _after(first: Kept, second: Kept) -> Kept:
    """A slow factor that is frozen in one of the steps alone makes a period there and none in the other."""
    if isinstance(first, torch.Tensor):
        return _moved(first, second)
    if isinstance(second, torch.Tensor):
        return _moved(first.along(len(second)), second)
    whole = math.lcm(first.period, len(second.kept))
    return Recurring(_moved(first.along(whole), second), whole // len(second.kept) * second.period)


def _moved(places: torch.Tensor, by: Kept) -> torch.Tensor:
    """Where places along an axis are after a further step."""
    at = places.clamp(min=0)
    if isinstance(by, Recurring):
        number, within = at // len(by.kept), by.kept[at % len(by.kept)]
        moved = torch.where(within < 0, -1, number * by.period + within)
    else:
        moved = by[at]
    return torch.where(places < 0, -1, moved)


def tensor_places(steps: Sequence[Step], names: Container[str]) -> dict[str, dict[int, Kept]]:
    """By the names of the first network's parameters or buffers, and axis, where old positions are in the last."""
    return compose([{name: axes for name, axes in step.tensors.items() if name in names} for step in steps])


def interface_places(steps: Sequence[Step]) -> tuple[Places, Places]:
    """The same for all inputs and outputs, by the number of the leaf as text."""
    return compose([step.inputs for step in steps]), compose([step.outputs for step in steps])


def cut(tree: Any, places: Places) -> Any:
    """Nested inputs or outputs with their old units alone, where some have grown."""
    if not places:
        return tree
    leaves, structure = pytree.tree_flatten(tree)
    return pytree.tree_unflatten([project(x, places.get(str(i))) for i, x in enumerate(leaves)], structure)


@dataclass(frozen=True)
class Counterparts:
    """How the nodes of a network and of one grown from it belong together.

    Attributes:
        places: by node, where the first network's units are in the last.
        shared: nodes whose old positions hold shares of what they held, which cannot be compared.
        moved: by node of the first network, the node of the last that carries its value to the readers.
        created: nodes of the last that the first does not have, whatever their names.
        arriving: by node of the first network, where its units are in what carries its value: that may have grown
            where the node has not, and the other way round.
    """

    places: Places = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    moved: Mapping[str, str] = field(default_factory=dict)
    created: frozenset[str] = frozenset()
    arriving: Places = field(default_factory=dict)

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Counterparts:
        """What several steps make of them together."""
        moved: dict[str, str] = {}
        growths: list[Places] = []  # of each step, by the node of the first network whose value then flowed there
        origins = {name for step in steps for name in (*step.nodes, *step.moved)}
        for step in steps:  # a node made now may have the name of one that was erased, and whose value flows elsewhere
            origins -= {name for name in step.created if moved.get(name, name) == name}
            held = {name: moved.get(name, name) for name in origins}
            growths.append({name: step.nodes[node] for name, node in held.items() if node in step.nodes})
            moved = {name: step.moved.get(carrier, carrier) for name, carrier in moved.items()} | {
                name: carrier for name, carrier in step.moved.items() if name not in moved
            }
        created = frozenset(name for step in steps for name in step.created)
        places = compose([{name: step.nodes[name] for name in step.nodes.keys() - created} for step in steps])
        shared = frozenset(name for step in steps for name in step.shared)
        moved = {name: carrier for name, carrier in moved.items() if name in origins}
        return cls(places, shared, moved, created, compose(growths))

    def both(self, origin: str, before: Any, after: Any) -> tuple[Any, Any]:
        """A node's value, and what carries it on, cut down to the first network's units that both still have."""
        if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
            return before, after
        own, carried = self.places.get(origin), self.arriving.get(origin)
        before, after = project(before, own), project(after, carried)
        for gone in (lost(own, before), lost(carried, after)):
            if gone is not None and before.shape == after.shape:
                before, after = before.masked_fill(gone, 0.0), after.masked_fill(gone, 0.0)
        return before, after

    def carrier(self, name: str) -> str:
        """The node that carries a node's value to its readers: mostly itself."""
        return self.moved.get(name, name)

    def carried_by(self, name: str) -> set[str]:
        """The nodes whose value a node carries on, itself excepted."""
        return {origin for origin, carrier in self.moved.items() if carrier == name != origin}


def project(tensor: torch.Tensor, axes: Mapping[int, Kept] | None, own: torch.Tensor | None = None) -> torch.Tensor:
    """The old units of a tensor that grew or shrank: P x'.

    Args:
        tensor: as it is now.
        axes: for each axis that changed, where the old positions are now; -1 where they are gone.
        own: the tensor as it was, from which units that are gone are taken; without it they are zero.
    """
    places = {axis: positions_along(kept, tensor.shape[axis]) for axis, kept in (axes or {}).items()}
    for axis, kept in places.items():
        tensor = tensor.index_select(axis, kept.clamp(min=0).to(tensor.device))
    gone = lost(places, tensor)
    if gone is None:
        return tensor
    return torch.where(gone, torch.zeros_like(tensor) if own is None else own, tensor)


def lost(axes: Mapping[int, Kept] | None, tensor: torch.Tensor) -> torch.Tensor | None:
    """Where a tensor of the old units has some that are gone, broadcastable to it; None if there are none."""
    mask: torch.Tensor | None = None
    for axis, places in (axes or {}).items():
        kept = places
        if isinstance(places, Recurring):
            kept = places.kept.repeat(tensor.shape[axis] // len(places.kept))
        assert isinstance(kept, torch.Tensor)
        if bool((kept < 0).any()):
            shape = [1] * tensor.dim()
            shape[axis] = -1
            here = (kept < 0).reshape(shape).to(tensor.device)
            mask = here if mask is None else mask | here
    return mask
