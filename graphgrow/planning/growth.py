"""What an exact growth of a space is: its units, its kind, and what the new units of every tensor hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from torch import fx

from graphgrow.ir.cells import cells_of, meeting
from graphgrow.ir.facts import Contraction, NodeFacts, Normalisation
from graphgrow.ir.flow import Fill, Held, State
from graphgrow.ir.positions import Units
from graphgrow.ir.value import Value
from graphgrow.planning.evaluate import Key


class Kind(Enum):
    """The two forms of growth."""

    APPEND = "append"
    REPLICATE = "replicate"


@dataclass
class Plan:
    """An exact growth of one space.

    Attributes:
        units: which units there will be.
        kind: append or replicate.
        fills: for each value and axis that holds the space, the fill state of each occurrence.
        readers: the axes of parameters along which the space is read and nothing else.
        exact_in: the modes in which the growth is exact.
        train_alone: nodes of the graph that count in train mode alone.
        rescaled: normalisations whose scale and eps must change, by how many more units they see.
        factors: by value, what a statistic over the axis must be multiplied by to be what it was.
        apart: whether the shares of copies are pulled apart.
    """

    units: Units
    kind: Kind
    fills: dict[Key, State] = field(default_factory=dict)
    readers: set[Key] = field(default_factory=set)
    exact_in: frozenset[str] = frozenset({"eval", "train"})
    train_alone: frozenset[fx.Node] = frozenset()
    rescaled: list[Normalisation] = field(default_factory=list)
    factors: dict[Value, float] = field(default_factory=dict)
    apart: bool = False

    def state(self, key: Key) -> State:
        """What the new units of a tensor hold along an axis, cell by cell."""
        return self.fills.get(key, (Fill.EVEN,) * len(cells_of(*key, self.units.space)))

    def meeting(self, facts: NodeFacts, c: Contraction) -> Iterator[tuple[int, int]]:
        """The occurrences on both sides of a node's sum of products that are multiplied with each other, by number."""
        left, right = (cells_of(v, i, self.units.space) for v, i in ((c.left, c.left_axis), (c.right, c.right_axis)))
        return meeting(left, right, facts.unaligned)


class Present(Protocol):
    """The units that a removal takes away, as they are now."""

    def shows(self, value: Value, axis: int, occurrence: int, fill: Held) -> bool:
        """Whether the entries of a parameter at those units are what growth with that fill would have made."""
