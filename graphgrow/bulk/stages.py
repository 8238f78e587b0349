"""Stages: sequences of sibling modules, each of which may stand in the graph once more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.meta import STACK
from graphgrow.network.network import Network
from graphgrow.rewrite.closing import close_branches
from graphgrow.rewrite.region import Region

_NUMBERED = re.compile(r"(.*?)(\d+)((?:_deepen\d*)*)")


@dataclass(frozen=True)
class Member:
    """One module of a stage.

    Attributes:
        path: of the module.
        shape: of its one result on the example inputs; None where it has not one.
        residual: whether a copy behind it passes its input on with nothing but closed residual branches.
        reason: why `deepen` cannot copy it; None where it can. What is not residual is copied behind a gate.
    """

    path: str
    shape: tuple[int, ...] | None
    residual: bool
    reason: str | None


@dataclass(frozen=True)
class Stage:
    """Modules that follow each other under one parent, as `layer1.0`, `layer1.1`, with results of one shape.

    Attributes:
        members: in the order in which they run.
    """

    members: tuple[Member, ...]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def name(self) -> str:
        """The first member's path, and the last one's."""
        first, last = self.members[0].path, self.members[-1].path
        return first if first == last else f"{first} to {last}"

    @property
    def level(self) -> int:
        """How many modules are around its members."""
        return self.members[0].path.count(".")

    @property
    def residual(self) -> bool:
        """Whether it holds a residual block."""
        return any(member.residual for member in self.members)

    def spread(self, copies: int) -> list[str]:
        """The members to copy, spread evenly over those that can be, the last one of each part first of all.

        As in Wu et al., "LLaMA Pro", 2024. Residual blocks are taken, where there are none whatever can be copied.

        Args:
            copies: how many, at least 0.

        Returns:
            Paths in the order of the stage, one for each copy.

        Raises:
            Declined: if nothing can be copied, with the reason of the last member.
        """
        chosen = [member for member in self.members if member.residual] or [
            member for member in self.members if member.reason is None
        ]
        if copies and not chosen:
            raise Declined(f"no module of `{self.name}` can be copied: {self.members[-1].reason}")
        return [chosen[-(-(i + 1) * len(chosen) // copies) - 1].path for i in range(copies)]


class Modules:
    """The modules of a network by the paths in which its nodes stand.

    Attributes:
        paths: of the modules that hold others, in the order in which they run.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        assert network.analysis.facts  # every node has its example value now
        self._graph = network.module.graph
        leaves = {str(node.target) for node in self._graph.nodes if node.op == "call_module"}
        weighing = {name.rpartition(".")[0] for name, p in network.module.named_parameters() if p.dim() > 1}
        weighing = {parent for path in weighing for parent in ancestors(path)}
        found: dict[str, None] = {}
        self._kinds: dict[str, object] = {}
        self._around: dict[fx.Node, set[str]] = {}
        for node in self._graph.nodes:
            self._around[node] = {str(path) for path, _ in (node.meta.get(STACK) or {}).values()}
            for path, kind in (node.meta.get(STACK) or {}).values():
                found.update(dict.fromkeys(ancestors(str(path))))
                self._kinds[str(path)] = kind
        self.paths = [path for path in found if path not in leaves and path in weighing]

    def stages(self) -> list[Stage]:
        """The stages to deepen, in the order in which they run.

        Where numbered modules lie within numbered modules, those are taken that are residual blocks, the innermost
        ones, unless they are the parts of several classes that make up each block of a sequence (T5's attention and
        MLP); where none is, the outermost that can be copied at all and are more than a plain nn.Sequential.
        """
        return self._below("")

    def family(self, parent: str, prefix: str) -> list[Stage]:
        """The stages of the modules `parent.prefix0`, `parent.prefix1`, ... and of their copies."""
        return [Stage(tuple(run)) for run in _runs(map(self._member, self.siblings(parent, prefix)))]

    def siblings(self, parent: str, prefix: str) -> list[str]:
        """The paths of those modules, in the order in which they run; how they compute is not looked at."""
        return [path for path in self._children(parent) if _number(path) == prefix]

    def _below(self, parent: str) -> list[Stage]:
        found: list[Stage] = []
        families: dict[str, list[Stage]] = {}
        for path in self._children(parent):
            prefix, inner = _number(path), self._below(path)
            if prefix is None:
                found += inner
            else:
                families.setdefault(prefix, []).extend(inner)
        for prefix, inner in families.items():
            found += self._chosen(parent, prefix, inner)
        order = {path: position for position, path in enumerate(self.paths)}
        return sorted(found, key=lambda stage: order[stage.members[0].path])

    def _chosen(self, parent: str, prefix: str, inner: list[Stage]) -> list[Stage]:
        """The stages of one family, or those within its members."""
        levels = {stage.level for stage in inner if stage.residual}
        own = self.family(parent, prefix)
        if levels and not self._made_of_parts(own, inner):
            return [stage for stage in inner if stage.level in levels]
        if any(stage.residual for stage in own):
            return own
        if prefix:  # `branch_1` and `branch_2` are parts of a block, not blocks of a sequence
            return inner
        members = [member for stage in own for member in stage.members if member.reason is None]
        blocks = any(self._kinds.get(member.path) is not nn.Sequential for member in members)
        return own if blocks or not _copied(inner) else inner

    def _made_of_parts(self, own: list[Stage], inner: list[Stage]) -> bool:
        """Whether residual blocks of one class hold numbered parts of several classes: attention, then an MLP."""
        blocks = [member for stage in own for member in stage.members]
        parts = [{self._kinds.get(member.path) for member in stage.members} for stage in inner]
        one_class = len(blocks) > 1 and len({self._kinds.get(block.path) for block in blocks}) == 1
        return one_class and any(block.residual for block in blocks) and any(len(kinds) > 1 for kinds in parts)

    def _children(self, parent: str) -> list[str]:
        return [path for path in self.paths if path.rpartition(".")[0] == parent]

    def _member(self, path: str) -> Member:
        shape = self._shape(path)
        try:
            region = Region.of(self._graph, path)
        except Declined as declined:
            return Member(path, shape, False, str(declined))
        streams = region.streams()
        if not streams:
            return Member(path, shape, False, f"nothing that flows into `{path}` has the shape of what flows out")
        if not any(node.op == "call_module" for node in region.nodes):
            return Member(path, shape, False, f"`{path}` calls no module that a copy could have for itself")
        return Member(path, shape, any(self._closes(region, stream) for stream in streams), None)

    def _shape(self, path: str) -> tuple[int, ...] | None:
        inside = [node for node, around in self._around.items() if path in around]
        leaving = [node for node in inside if any(path not in self._around[user] for user in node.users)]
        value = leaving[0].meta["value"] if len(leaving) == 1 else None
        return tuple(value.shape) if isinstance(value, torch.Tensor) else None

    def _closes(self, region: Region, stream: fx.Node) -> bool:
        module, result = self.network.module, region.result
        return close_branches(module, region.nodes, stream, result, result, region.path) is not None


def numbered(path: str) -> tuple[str, str] | None:
    """Parent and prefix of a path that ends in a number, `layer1.0` -> ("layer1", ""); None for any other path."""
    prefix = _number(path)
    return None if prefix is None else (path.rpartition(".")[0], prefix)


def _number(path: str) -> str | None:
    """What stands before the number of a path's last part; copies that `deepen` made count as what they are of."""
    match = _NUMBERED.fullmatch(path.rpartition(".")[2])
    return None if match is None else match[1]


def ancestors(path: str) -> Iterator[str]:
    """The paths of the modules around a module, and its own, outermost first."""
    parts = path.split(".") if path else []
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _runs(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members next to each other with results of one shape; one without a result stands alone."""
    for _, run in groupby(members, key=lambda member: member.shape or member.path):
        yield list(run)


def _copied(stages: Iterable[Stage]) -> bool:
    """Whether any member can be copied."""
    return any(member.reason is None for stage in stages for member in stage.members)
