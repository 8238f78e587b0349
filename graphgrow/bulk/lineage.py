"""Which block of a graph each block of a larger sibling descends from, where the sibling has more of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from torch import nn

from graphgrow.bulk.grafts import Graft, within
from graphgrow.bulk.layers import extra_layers, places
from graphgrow.bulk.stages import Modules, Stage, ancestors, numbered
from graphgrow.errors import Unsupported
from graphgrow.ir.called import called_module
from graphgrow.ir.meta import STACK
from graphgrow.layers import RootMeanSquareNorm
from graphgrow.network.network import Network
from graphgrow.rewrite.region import Region

_NORMS = (nn.LayerNorm, nn.RMSNorm, RootMeanSquareNorm)

Family = tuple[str, str]  # a parent's path, and what stands before the number in the names of its children


@dataclass(frozen=True)
class Lineage:
    """The copies that give a graph as many blocks as its target has.

    Attributes:
        families: the sequences of blocks that are longer in the target, or named otherwise.
        sites: the graph's blocks to copy, one path for each copy.
        origins: by path of a block of the target, the path of the graph's block that it descends from.
        layers: of sequences of layers with no blocks around them, the sites behind which one more is put.
        grafts: blocks of the target's own, which the graph does not get.
    """

    families: tuple[Family, ...]
    sites: tuple[str, ...]
    origins: Mapping[str, str]
    layers: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    grafts: tuple[Graft, ...] = ()

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
            raise Unsupported(
                f"the target has fewer blocks `{_pattern(gone)}` than the graph; nothing can shrink: "
                f"{_lost(graph, target, gone)}"
            )
        if not families:
            return cls((), (), {})
        mine, theirs = Modules(graph), Modules(target)
        sites: list[str] = []
        origins: dict[str, str] = {}
        layers: dict[Family, tuple[str, ...]] = {}
        grafts: list[Graft] = []
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
                further = _grafted(own, larger, target)
                if further:
                    grafts += further
                    origins.update({graft.path: f"{graft.path}@new" for graft in further})
                    pairs = zip(larger.members, own.members, strict=False)
                    origins.update((there.path, here.path) for there, here in pairs)
                    continue
                copied = _copied(graph, own, larger, at_end)
                counts = Counter(copied)
                sites += copied
                line = [member.path for member in own.members for _ in range(1 + counts[member.path])]
                origins.update(zip((member.path for member in larger.members), line, strict=True))
        return cls(families, tuple(sites), origins, layers, tuple(grafts))

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
                there = (path for path in theirs.siblings(*family) if not within(path, self.grafts))
                found.update(zip(there, mine.siblings(*family), strict=True))
        return found


def renamed(name: str, paths: Mapping[str, str]) -> str:
    """A module path or tensor name with the path of the block that it lies in replaced."""
    around = next((path for path in reversed(list(ancestors(name))) if path in paths), None)
    return name if around is None else paths[around] + name.removeprefix(around)


def _families(ours: Iterable[str], theirs: Iterable[str]) -> Iterable[Family]:
    """The families of which the target has a member that the graph does not have."""
    known = {numbered(path) for path in _holders(ours)}
    families = (numbered(path) for path in _missing(ours, theirs))
    return dict.fromkeys(family for family in families if family is not None and family in known)


def _missing(ours: Iterable[str], theirs: Iterable[str]) -> Iterator[str]:
    """The outermost modules around tensors of one model that another does not have, tensor by tensor."""
    present = _holders(ours)
    for name in theirs:
        yield from islice((path for path in ancestors(name.rpartition(".")[0]) if path not in present), 1)


def _holders(names: Iterable[str]) -> set[str]:
    return {path for name in names for path in ancestors(name.rpartition(".")[0])}


def _lost(graph: Network, target: Network, family: Family) -> str:
    """The first module of a family that a target has nothing like."""
    mine, theirs = _classes(graph), _classes(target)
    members = (path for path in mine if numbered(path) == family)
    lost = next((path for path in members if mine[path] != theirs.get(path)), None)
    if lost is None:
        return "what they compute would be lost"
    instead = f", a {theirs[lost]} in the target" if lost in theirs else ""
    return f"what `{lost}` computes would be lost, a {mine[lost]} here{instead}"


def _classes(network: Network) -> dict[str, str]:
    """The names of the classes of the modules in which the nodes of a graph stand, by path."""
    around = (item for node in network.module.graph.nodes for item in (node.meta.get(STACK) or {}).values())
    return {str(path): getattr(kind, "__name__", str(kind).rpartition(".")[2]) for path, kind in around}


def _grafted(own: Stage, wanted: Stage, target: Network) -> list[Graft]:
    """The blocks by which the target's stage is longer, where none can be copied here and all have no effect there."""
    if own.residual or len(wanted) <= len(own):
        return []
    paths = [member.path for member in wanted.members]
    for kind in (Graft.of, Graft.beside_others):
        found = [kind(target, path, paths[len(own) - 1]) for path in paths[len(own) :]]
        grafts = [graft for graft in found if graft is not None]
        if len(grafts) == len(found):
            return grafts
    return []


def _why_not_closed(graph: Network, path: str) -> str:
    """Why zeros do not make a block the identity."""
    result = Region.of(graph.module.graph, path).result
    if isinstance(called_module(graph.module, result), _NORMS):
        return (
            f"with its branches closed a copy would still norm what flows in, by `{result.target}`, and the norm of a "
            "normed value is another value: its weight and bias have given each token another mean and deviation"
        )
    return (
        "its result is not its input plus branches that zeros would close, so that a copy would need a gate, which the "
        "target does not have"
    )


def _copied(graph: Network, own: Stage, wanted: Stage, at_end: bool) -> list[str]:
    """The sites of the copies that make a stage as long as the target's."""
    copies = len(wanted) - len(own)
    if copies < 0:
        raise Unsupported(f"`{own.name}` has {len(own)} blocks and the target {len(wanted)}; nothing can shrink")
    if copies and not own.residual:
        reason = own.members[-1].reason or _why_not_closed(graph, own.members[-1].path)
        raise Unsupported(
            f"`{own.name}` has {len(own)} blocks and the target {len(wanted)}, but none can be copied: {reason}; "
            "start from a model that has as many, or a residual block there"
        )
    sites = own.spread(copies)
    return [sites[-1]] * copies if at_end and copies else sites


def _pattern(family: Family) -> str:
    parent, prefix = family
    return f"{parent}.{prefix}N" if parent else f"{prefix}N"
