"""Where in a graph the units of a channel group can be seen: the values that weights read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from graphgrow.errors import Declined, SignalError
from graphgrow.ir.positions import Units, axis_map
from graphgrow.ir.terms import occurs
from graphgrow.ir.value import Value
from graphgrow.network.groups import Group
from graphgrow.network.network import Network

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Place:
    """One value in which the units of a group stand along one axis.

    Attributes:
        node: name of the node that puts it out.
        axis: along which the units stand.
        units: how many there are.
        order: positions along the axis, sorted by unit, `len(order) / units` for each; None where they are the units.
    """

    node: str
    axis: int
    units: int
    order: torch.Tensor | None

    def rows(self, value: torch.Tensor, samples: int | None, generator: torch.Generator) -> torch.Tensor:
        """What the units hold, (samples, units): batch and positions are all samples alike.

        Args:
            value: of the node.
            samples: at most so many for each unit, drawn with replacement; None takes all of them.
            generator: on the CPU.
        """
        moved = value.detach().movedim(self.axis, -1)
        sizes = moved.shape[:-1]
        count = math.prod(sizes)
        repeated = 1 if self.order is None else len(self.order) // self.units
        if samples is None or count * repeated <= samples:
            flat = moved.reshape(count, moved.shape[-1])
        else:
            drawn = torch.randint(count, (max(1, samples // repeated),), generator=generator).to(value.device)
            flat = moved[torch.unravel_index(drawn, sizes)]
        if self.order is None:
            return flat
        parts = flat.index_select(1, self.order.to(value.device)).reshape(-1, self.units, repeated)
        return parts.transpose(1, 2).reshape(-1, self.units)


def places_of(network: Network, group: Group, most: int = 2) -> tuple[Place, ...]:
    """The values in which a group's units are read: by weights, or where none reads them, by other values.

    Args:
        network: that the group is of.
        group: with all its members.
        most: so many at most, spread evenly from the first to the last: a residual stream is read in every block.

    Raises:
        SignalError: if nothing reads the group's units.
    """
    found = list(_read(network, group, by_weights=True)) or list(_read(network, group, by_weights=False))
    if not found:
        raise SignalError(f"nothing sums over the units of `{group.name}`, so there is no value to measure them in")
    chosen = dict.fromkeys(round(i * (len(found) - 1) / max(1, most - 1)) for i in range(min(most, len(found))))
    return tuple(_place(group, *found[index]) for index in chosen)


def _read(network: Network, group: Group, by_weights: bool) -> Iterator[tuple[str, Value, int]]:
    """Values over the group's units that some operator sums over, in topological order, each once, with their nodes.

    One of several that an operator puts out together is seen behind the node that picks it.
    """
    produced: dict[int, str] = {}
    for facts in network.analysis.facts.values():
        if isinstance(facts.output, Value) and facts.node.op != "get_attr":
            produced.setdefault(id(facts.output), facts.node.name)
    seen: set[int] = set()
    for facts in network.analysis.touching(group.space):
        for c in facts.contractions:
            for value, axis, other in ((c.left, c.left_axis, c.right), (c.right, c.right_axis, c.left)):
                if id(value) in seen or id(value) not in produced or other.parameter is not by_weights:
                    continue
                if occurs(group.space, value.axes[axis]):
                    seen.add(id(value))
                    yield produced[id(value)], value, axis % len(value.axes)


def _place(group: Group, node: str, value: Value, axis: int) -> Place:
    unit = axis_map(value.axes[axis], Units(group.space, torch.arange(group.size))).unit
    if torch.equal(unit, torch.arange(group.size)):
        return Place(node, axis, group.size, None)
    order = torch.argsort(unit, stable=True)
    return Place(node, axis, group.size, order[int((unit < 0).sum()) :])


def for_each(network: Network, groups: Iterable[Group] | None, make: Callable[[Group], T]) -> Iterator[tuple[Group, T]]:
    """Groups, each with what is made for it; where none are named, all that can grow and for which it can be made.

    Raises:
        Declined, SignalError: if it cannot be made for a group that was named.
    """
    for group in network.groups if groups is None else groups:
        if groups is None and group.frozen is not None:
            continue
        try:
            made = make(group)
        except (Declined, SignalError):
            if groups is not None:
                raise
            continue
        yield group, made
