"""Channel groups: the spaces that parameters write, by name, with all their members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphgrow.errors import Declined, MutationError, did_you_mean
from graphgrow.ir.facts import NodeFacts
from graphgrow.ir.terms import Reason, Space, leaves, normal
from graphgrow.ir.value import Value
from graphgrow.ops.analysis import Analysis


@dataclass(frozen=True, eq=False)
class Group:
    """A channel group.

    Attributes:
        name: module path of its first producer; a factor of an axis carries a suffix (`attn:heads`).
        members: module paths that write it, in topological order.
        readers: module paths that read it (sum over it).
        frozen: why it cannot grow, None where it can.
        space: its axis variable.
    """

    name: str
    members: tuple[str, ...]
    readers: tuple[str, ...]
    frozen: Reason | None
    space: Space

    @property
    def size(self) -> int:
        """How many units it has."""
        return self.space.size

    def __str__(self) -> str:
        state = f"frozen: {self.frozen}" if self.frozen else f"read by {len(self.readers)}"
        return f"{self.name} [{self.size}] written by {len(self.members)}, {state}"


class Groups(Sequence[Group]):
    """All channel groups of a graph, in topological order of their first producers."""

    def __init__(self, groups: Sequence[Group], unknown: Mapping[str, str] | None = None) -> None:
        self._groups = tuple(groups)
        self._unknown = dict(unknown or {})  # by module path, why no rule says what it does
        self._by_name = {group.name: group for group in groups}

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int | slice) -> Group | tuple[Group, ...]:  # type: ignore[override]
        return self._groups[index]

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def find(self, name: str) -> Group:
        """The group of that name, else the one group that a member of that path writes.

        Raises:
            MutationError: if there is none, or several.
            Declined: if it is a module of which no rule says what it does.
        """
        path, colon, suffix = name.partition(":")
        owner = _owner(path)
        if owner + colon + suffix in self._by_name:
            return self._by_name[owner + colon + suffix]
        if path in self._unknown:
            raise Declined(f"the axes of `{path}` are frozen: {self._unknown[path]}")
        path = owner
        written = [g for g in self._groups if path in g.members and (not suffix or g.name.endswith(f":{suffix}"))]
        if len(written) == 1:
            return written[0]
        if written:
            names = ", ".join(g.name for g in written)
            raise MutationError(f"`{name}` writes several channel groups: {names}; name one of them")
        known = dict.fromkeys([*self._by_name, *(member for group in self._groups for member in group.members)])
        raise MutationError(f"there is no channel group `{name}`; {did_you_mean(name, known, 'see graph.groups')}")

    @classmethod
    def of(cls, analysis: Analysis) -> Groups:
        """The groups that follow from an analysis."""
        reading = analysis.reading_axes()
        carried = {
            leaf
            for facts in analysis.facts.values()
            if facts.node.op not in ("placeholder", "get_attr")
            for value, _ in facts.flows
            for term in value.axes
            for leaf in leaves(term)
            if not (value.constant and leaf.frozen)  # of a weight that is computed: the sizes of its kernel
        }
        members: dict[Space, dict[str, Value]] = {}
        readers: dict[Space, dict[str, None]] = {}
        axes: dict[Space, tuple[Value, int]] = {}
        for facts in analysis.facts.values():
            for path, value in _parameters(facts):
                for axis, term in enumerate(value.axes):
                    for space in leaves(term):
                        if space not in carried or space.of is not None:
                            continue
                        if (value, axis) in reading:
                            readers.setdefault(space, {})[path] = None
                        else:
                            members.setdefault(space, {}).setdefault(path, value)
                            axes.setdefault(space, (value, axis))
        names = _names(members, axes)
        return cls(
            [
                Group(names[space], tuple(paths), tuple(readers.get(space, {})), space.frozen, space)
                for space, paths in members.items()
            ],
            {str(node.target): text for node, text in analysis.unknown.items() if node.op == "call_module"},
        )


def _parameters(facts: NodeFacts) -> Iterator[tuple[str, Value]]:
    """The parameters a node holds itself, with its path: a module's own, or a bare one that is fetched."""
    if facts.node.op == "get_attr" and isinstance(facts.output, Value):
        yield _owner(facts.module_path or facts.node.name), facts.output
    elif facts.node.op == "call_module":
        for value in facts.operands:
            if value.parameter and any(name.startswith(f"{facts.module_path}.") for name in value.aliases):
                yield _owner(facts.module_path or facts.node.name), value


def _owner(path: str) -> str:
    """The layer whose weight a parametrisation computes, of the path at which torch keeps that."""
    owner, found, _ = path.partition(".parametrizations.")
    return owner if found else path


def _names(members: dict[Space, dict[str, Value]], axes: dict[Space, tuple[Value, int]]) -> dict[Space, str]:
    """A name for each space; those that share a first producer carry a suffix."""
    names: dict[Space, str] = {}
    taken: set[str] = set()
    for space, paths in members.items():
        path = next(iter(paths))
        value, axis = axes[space]
        whole = normal(value.axes[axis])
        parts = list(dict.fromkeys(leaf.of or leaf for leaf in leaves(whole)))
        name = path if whole is space else f"{path}:{space.label or parts.index(space)}"
        number = 2
        while name in taken:
            name = f"{path}:{space.label or 'axis'}{number}"
            number += 1
        taken.add(name)
        names[space] = name
    return names
