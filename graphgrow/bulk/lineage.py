"""Which block of a graph each block of a larger sibling descends from, where the sibling has more of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphgrow.bulk.layers import extra_layers, places
from graphgrow.bulk.stages import Modules, Stage, ancestors, numbered
from graphgrow.errors import Unsupported
from graphgrow.rewrite.network import Network

Family = tuple[str, str]  # a parent's path, and what stands before the number in the names of its children


@dataclass(frozen=True)
class Lineage:
    """The copies that give a graph as many blocks as its target has.

    Attributes:
        families: the sequences of blocks that are longer in the target, or named otherwise.
        sites: the graph's blocks to copy, one path for each copy.
        origins: by path of a block of the target, the path of the graph's block that it descends from.
        layers: of sequences of layers with no blocks around them, the sites behind which one more is put.
    """

    families: tuple[Family, ...]
    sites: tuple[str, ...]
    origins: Mapping[str, str]
    layers: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Network, target: Network, names: Iterable[str], at_end: bool = False) -> Lineage:
        """Compare the paths of both.

        The blocks of one family are taken in runs whose results have one shape (a resolution, a width); the k-th run
        of the graph becomes the k-th one of the target.

        Args:
            graph: to be grown.
            target: the larger sibling, captured.
            names: of the target's tensors.
            at_end: put all copies of a run behind its last block, so that the blocks of the graph keep their places
                (Swin's windows are shifted in every second one); else spread them evenly.

        Raises:
            Unsupported: if the runs cannot be told from each other, or a run has no block that can be copied.
        """
        ours, wanted = list(graph.module.state_dict()), list(names)
        gone = next(iter(_families(wanted, ours)), None)
        families = tuple(_families(ours, wanted))
        if gone is not None and gone not in families:
            raise Unsupported(f"the target has fewer blocks `{_pattern(gone)}` than the graph; nothing can shrink")
        if not families:
            return cls((), (), {})
        mine, theirs = Modules(graph), Modules(target)
        sites: list[str] = []
        origins: dict[str, str] = {}
        layers: dict[Family, tuple[str, ...]] = {}
        for family in families:
            left, right = mine.family(*family), theirs.family(*family)
            if not left or not right:
                extra = extra_layers(graph, target, *family)
                layers[family] = extra.sites
                origins.update(extra.origins)
                continue
            if len(left) != len(right):
                raise Unsupported(
                    f"the blocks `{_pattern(family)}` come in {len(right)} runs of one shape in the target and in "
                    f"{len(left)} here; the target must have the same sequence of shapes, each as long or longer"
                )
            for own, larger in zip(left, right, strict=True):
                copied = _copied(own, larger, at_end)
                counts = Counter(copied)
                sites += copied
                line = [member.path for member in own.members for _ in range(1 + counts[member.path])]
                origins.update(zip((member.path for member in larger.members), line, strict=True))
        return cls(families, tuple(sites), origins, layers)

    def paths(self, grown: Network, target: Network) -> dict[str, str]:
        """By path of a block of the target, the path of the grown graph's block in the same place.

        Args:
            grown: the graph after the copies were made.
            target: as for `of`.
        """
        if not self.families:
            return {}
        mine, theirs = Modules(grown), Modules(target)
        found: dict[str, str] = {}
        for family in self.families:
            if family in self.layers:
                found.update(places(grown, target, *family, self.layers[family]))
            else:
                found.update(zip(_paths(theirs.family(*family)), _paths(mine.family(*family)), strict=True))
        return found


def renamed(name: str, paths: Mapping[str, str]) -> str:
    """A module path or tensor name with the path of the block that it lies in replaced."""
    around = next((path for path in reversed(list(ancestors(name))) if path in paths), None)
    return name if around is None else paths[around] + name.removeprefix(around)


def _families(ours: Iterable[str], theirs: Iterable[str]) -> Iterable[Family]:
    """The families of which the target has a member that the graph does not have."""
    present = {path for name in ours for path in ancestors(name.rpartition(".")[0])}
    known = {numbered(path) for path in present}
    found: dict[Family, None] = {}
    for name in theirs:
        missing = next((path for path in ancestors(name.rpartition(".")[0]) if path not in present), None)
        family = None if missing is None else numbered(missing)
        if family is not None and family in known:
            found[family] = None
    return found


def _copied(own: Stage, wanted: Stage, at_end: bool) -> list[str]:
    """The sites of the copies that make a stage as long as the target's."""
    copies = len(wanted) - len(own)
    if copies < 0:
        raise Unsupported(f"`{own.name}` has {len(own)} blocks and the target {len(wanted)}; nothing can shrink")
    if copies and not own.residual:
        reason = own.members[-1].reason or (
            "its result is not its input plus branches that zeros would close, so that a copy would need a gate, which "
            "the target does not have"
        )
        raise Unsupported(
            f"`{own.name}` has {len(own)} blocks and the target {len(wanted)}, but none can be copied: {reason}; "
            "start from a model that has as many, or a residual block there"
        )
    sites = own.spread(copies)
    return [sites[-1]] * copies if at_end and copies else sites


def _paths(stages: Iterable[Stage]) -> list[str]:
    return [member.path for stage in stages for member in stage.members]


def _pattern(family: Family) -> str:
    parent, prefix = family
    return f"{parent}.{prefix}N" if parent else f"{prefix}N"
