"""The size that each space of a graph must take for its parameters to have the shapes of a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphgrow.bulk.lineage import renamed
from graphgrow.errors import Unsupported
from graphgrow.ir.terms import Concat, Product, Space, Term, children, leaves, normal, product
from graphgrow.network.network import Network

MOST_SHOWN = 4


@dataclass(frozen=True)
class Demand:
    """One space that must change its size.

    Attributes:
        group: the channel group of that space.
        extra: units to add.
        label: of the space: "heads", "head_width", ..., empty for most.
        name: the first of the target's parameters that asks for it.
    """

    group: str
    extra: int
    label: str
    name: str


@dataclass(frozen=True)
class Tail:
    """What a tensor of the target has at the end of one axis, and the graph has nothing of.

    Attributes:
        units: how many.
        read: whether the axis is one along which the tensor reads.
    """

    units: int
    read: bool


def demands(
    graph: Network, target: Network, origins: Mapping[str, str], joined: frozenset[Space] = frozenset()
) -> list[Demand]:
    """Read off the target's axes which groups of the graph grow, and by how much.

    Both graphs state each parameter's axes as terms over spaces; where the terms have one form, each space of the
    graph is to have the size of its counterpart. So heads and head widths are told apart, though only their product
    is in a shape.

    Args:
        graph: to be grown.
        target: captured as the graph was.
        origins: by path of a block of the target, the path of the graph's block that it descends from.
        joined: spaces of the target that stand behind those of the graph in concatenations, and ask for nothing.

    Raises:
        Unsupported: names the first parameters that cannot get their shapes, and why.
    """
    names = {group.space: group.name for group in graph.groups}
    sizes: dict[Space, tuple[int, str]] = {}
    faults: dict[object, str] = {}
    for name, theirs in target.analysis.parameters.items():
        ours = graph.analysis.parameters.get(renamed(name, origins))
        if ours is None:
            continue
        if len(ours.axes) != len(theirs.axes):
            faults[name] = f"`{name}` has {len(theirs.axes)} axes in the target and {len(ours.axes)} here"
            continue
        for axis, (mine, wanted) in enumerate(zip(ours.axes, theirs.axes, strict=True)):
            try:
                for space, size in _counterparts(mine, _without_tail(mine, wanted, joined)):
                    present, asking = sizes.setdefault(space, (size, name))
                    fault = _fault(space, size, name) or _conflict(present, asking, size, name)
                    if fault is not None:
                        faults.setdefault(space, fault)
            except _OtherForm:
                faults[name, axis] = (
                    f"axis {axis} of `{name}` is {_text(wanted)} in the target and {_text(mine)} here, "
                    "and the one cannot grow into the other"
                )
    changing = {space: demand for space, demand in sizes.items() if demand[0] != space.size}
    for space, (size, name) in changing.items():
        if space not in names:
            faults.setdefault(space, f"`{name}` has {size} units in the target and {space.size} here, of no group")
    if faults:
        raise Unsupported(f"this graph cannot grow into the target: {listed(list(faults.values()))}")
    return [Demand(names[s], size - s.size, s.label, name) for s, (size, name) in changing.items()]


def tails(
    graph: Network, target: Network, origins: Mapping[str, str], joined: frozenset[Space]
) -> dict[str, tuple[Tail, ...]]:
    """By name of a tensor of the target's, what joined spaces add at the end of each axis.

    Args:
        graph: as for `demands`.
        target: as there.
        origins: as there.
        joined: as there.
    """
    found: dict[str, tuple[Tail, ...]] = {}
    reading = target.analysis.reading_axes() if joined else set()
    for name, theirs in target.analysis.parameters.items():
        ours = graph.analysis.parameters.get(renamed(name, origins))
        if ours is not None and len(ours.axes) == len(theirs.axes):
            more = tuple(
                Tail(wanted.size - _without_tail(mine, wanted, joined).size, (theirs, axis) in reading)
                for axis, (mine, wanted) in enumerate(zip(ours.axes, theirs.axes, strict=True))
            )
            found.update({name: more} if any(tail.units for tail in more) else {})
    return found


def _without_tail(ours: Term, theirs: Term, joined: frozenset[Space]) -> Term:
    """A concatenation without what joined spaces add at its end, where it is longer than its counterpart."""
    mine, wanted = normal(ours), normal(theirs)
    if isinstance(mine, Product) and isinstance(wanted, Product):  # the slowest factor comes first
        return product((_without_tail(mine.factors[0], wanted.factors[0], joined), *wanted.factors[1:]))
    if not isinstance(mine, Concat) or not isinstance(wanted, Concat):
        return theirs
    count = len(mine.parts)
    further = wanted.parts[count:]
    if further and all(leaf in joined for part in further for leaf in leaves(part)):
        return Concat(wanted.parts[:count])
    return theirs


def listed(faults: list[str]) -> str:
    """The first faults, and how many more there are."""
    more = len(faults) - MOST_SHOWN
    return "; ".join(faults[:MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


class _OtherForm(Exception):
    """Two terms of different sizes and of different forms."""


def _counterparts(ours: Term, theirs: Term) -> Iterator[tuple[Space, int]]:
    """Each space of a term with the size of its counterpart in a term of the same form."""
    ours, theirs = normal(ours), normal(theirs)
    if isinstance(ours, Space) and (isinstance(theirs, Space) or theirs.size == ours.size):
        yield ours, theirs.size
        return
    parts = () if isinstance(ours, Space) else children(ours)
    others = () if isinstance(theirs, Space) else children(theirs)
    if type(ours) is type(theirs) and len(parts) == len(others):
        for part, other in zip(parts, others, strict=True):
            yield from _counterparts(part, other)
        return
    if ours.size != theirs.size:
        raise _OtherForm
    yield from ((leaf, leaf.size) for leaf in leaves(ours))


def _fault(space: Space, size: int, name: str) -> str | None:
    if size == space.size:
        return None
    if size < space.size:
        return f"`{name}` has {size} {_unit(space)} in the target and {space.size} here; nothing can shrink"
    if space.frozen is not None:
        return f"`{name}` has {size} {_unit(space)} in the target and {space.size} here, frozen: {space.frozen}"
    return None


def _conflict(present: int, asking: str, size: int, name: str) -> str | None:
    if size == present:
        return None
    return f"`{asking}` asks for {present} units and `{name}` for {size} of what is one channel group here"


def _unit(space: Space) -> str:
    if not space.label:
        return "units"
    return space.label if space.label == "heads" else f"units of {space.label.replace('_', ' ')}"


def _text(term: Term) -> str:
    term = normal(term)
    if isinstance(term, Concat):
        return " ++ ".join(_text(part) for part in term.parts)
    if isinstance(term, Product):
        return " x ".join(f"({_text(f)})" if isinstance(f, Concat) else _text(f) for f in term.factors)
    return f"{term.size}{f' {term.label}' if term.label else ''}"
