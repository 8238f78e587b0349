"""Where the units of an ancestor lie in a grown network, over all the steps between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from graphgrow.rewrite.network import Step

Places = Mapping[str, Mapping[int, torch.Tensor]]


def compose(parts: Sequence[Places]) -> dict[str, dict[int, torch.Tensor]]:
    """Follow old positions through several steps: a unit at j goes to second[first[j]]."""
    total: dict[str, dict[int, torch.Tensor]] = {}
    for places in parts:
        for name, axes in places.items():
            mine = total.setdefault(name, {})
            for axis, kept in axes.items():
                mine[axis] = kept[mine[axis]] if axis in mine else kept
    return total


def node_places(steps: Sequence[Step]) -> dict[str, dict[int, torch.Tensor]]:
    """By node name and axis, where the first network's positions are in the last."""
    return compose([step.nodes for step in steps])


def tensor_places(steps: Sequence[Step]) -> dict[str, dict[int, torch.Tensor]]:
    """The same for parameters and buffers."""
    return compose([step.tensors for step in steps])


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
        for step in steps:
            held = {name: moved.get(name, name) for name in origins}
            growths.append({name: step.nodes[node] for name, node in held.items() if node in step.nodes})
            moved = {name: step.moved.get(carrier, carrier) for name, carrier in moved.items()} | {
                name: carrier for name, carrier in step.moved.items() if name not in moved
            }
        created = frozenset(name for step in steps for name in step.created)
        shared = frozenset(name for step in steps for name in step.shared)
        moved = {name: carrier for name, carrier in moved.items() if name not in created}
        return cls(node_places(steps), shared, moved, created, compose(growths))

    def carrier(self, name: str) -> str:
        """The node that carries a node's value to its readers: mostly itself."""
        return self.moved.get(name, name)

    def carried_by(self, name: str) -> set[str]:
        """The nodes whose value a node carries on, itself excepted."""
        return {origin for origin, carrier in self.moved.items() if carrier == name != origin}


def project(tensor: torch.Tensor, axes: Mapping[int, torch.Tensor] | None) -> torch.Tensor:
    """The old units of a grown tensor: P x'."""
    for axis, kept in (axes or {}).items():
        tensor = tensor.index_select(axis, kept.to(tensor.device))
    return tensor
