"""gg.scale: every width and every depth of a model times a factor, as ordinary mutations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import combinations

from torch.optim import Optimizer

from graphgrow.bulk.stages import Modules
from graphgrow.bulk.widening import widening
from graphgrow.errors import Declined, MutationError, Unsupported
from graphgrow.graph import Graph
from graphgrow.ir.terms import Product, Space, Term, children, leaves, normal
from graphgrow.network.bare import without_data
from graphgrow.network.describe import counted
from graphgrow.network.groups import Group
from graphgrow.network.network import require_network
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation, Refusal
from graphgrow.rewrite.text import parse_mutation

MULTIPLE = 8
"""Widths are rounded up to a multiple of this, those of at least twice as many units."""


@dataclass(frozen=True)
class Growth:
    """One width or one stage that grows.

    Attributes:
        name: of the channel group, or of the stage (`layer1.0 to layer1.1`).
        before: units or blocks before.
        after: units or blocks after.
        unit: "units" or "blocks".
    """

    name: str
    before: int
    after: int
    unit: str


@dataclass(frozen=True)
class ScalePlan:
    """What `scale` would do; prints as a table of what grows, and what does not and why.

    Attributes:
        growths: what grows, widths first.
        mutations: that bring it about, in order: `gg.apply(graph, plan.mutations)`.
        refusals: what does not grow, and why.
        parameters: number of scalar parameters before and after.
    """

    growths: tuple[Growth, ...]
    mutations: tuple[Mutation, ...]
    refusals: tuple[Refusal, ...]
    parameters: tuple[int, int]

    def __str__(self) -> str:
        widths = sum(growth.unit == "units" for growth in self.growths)
        before, after = self.parameters
        head = (
            f"{counted(widths, 'width')} and {counted(len(self.growths) - widths, 'depth')} grow, "
            f"from {before:,} to {after:,} parameters ({counted(len(self.mutations), 'mutation')}):"
        )
        wide = max((len(line.name) for line in self.growths), default=0)
        lines = [f"  {g.name:<{wide}} {g.before:>6} -> {g.after} {g.unit}" for g in self.growths]
        if not self.refusals:
            return "\n".join([head, *lines])
        wide = max(len(refusal.site) for refusal in self.refusals)
        reasons = [f"  {refusal.site:<{wide}}  {refusal.reason}" for refusal in self.refusals]
        rest = f"{len(reasons)} {'does' if len(reasons) == 1 else 'do'} not:"
        return "\n".join([head, *lines, "", rest, *reasons])


def scale(
    graph: Graph,
    width: float = 1.0,
    depth: float = 1.0,
    multiple: int | None = None,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    share: bool = True,
    only: str | Sequence[str] = "*",
) -> Graph:
    """Grow every width of a model by one factor and every depth by another; the function is preserved.

        larger = gg.scale(graph, width=1.5, depth=1.5)

    Each channel group of n units gets round(n * width), rounded up to a multiple, by `widen`; where only whole copies
    are exact (a layer norm behind depthwise convolutions) and the result is so many times n, by `split`. Of the
    factors of one axis a single one grows, else the axis would by width^2: of attention the heads and not their width
    (with rotary embeddings and attention's default scale the width cannot), of grouped convolutions and group norms
    the groups.
    Each stage of n blocks (`layer1.0`, `layer1.1`, ...) gets round(n * depth), by copies that stand evenly spread
    behind the blocks that can be copied and start as identity (Wu et al., "LLaMA Pro", 2024).

    Widths grow first, so that the copies have the grown shapes already: otherwise each copy would bring groups of its
    own to widen. What cannot grow stays as it is; `plan_scale` tells beforehand what does not, and why.

    Args:
        graph: the parent, which is not changed.
        width: factor on the widths, at least 1.
        depth: factor on the depths, at least 1.
        multiple: what the widths are rounded up to, factors of an axis (heads, groups) aside; by default 8 for groups
            of at least 16 units, and 1 for smaller ones.
        seed: of the fresh weights.
        optimizer: over the parent's parameters, carried over in place, as `gg.apply` does.
        share: as for `gg.apply`.
        only: patterns of the names of channel groups and stages that may grow, as in file names; `*.mlp.*` for the
            hidden widths of a transformer's MLPs, which a checkpoint of its class can hold.

    Returns:
        The grown graph, whose ledger holds the mutations one by one.

    Raises:
        MutationError: if a factor is below 1, or the multiple is, or a pattern fits no name.
        Unsupported: if nothing at all can grow, with the reasons.
        OptimizerError: as `gg.apply`.
    """
    at_once = optimizer is None and share  # what was tried out may be kept then
    require_network(graph, "gg.scale")
    trial = _tried(graph if at_once else without_data(graph), width, depth, multiple, only, seed)
    plan = trial.plan()
    if not plan.mutations and (width > 1 or depth > 1):
        raise Unsupported(f"nothing grows with width={width:g} and depth={depth:g}. {plan}")
    return trial.graph if at_once else apply(graph, plan.mutations, seed=seed, optimizer=optimizer, share=share)


def plan_scale(
    graph: Graph,
    width: float = 1.0,
    depth: float = 1.0,
    multiple: int | None = None,
    only: str | Sequence[str] = "*",
) -> ScalePlan:
    """What `scale` would do, and what would not grow and why; nothing is changed and no data is moved.

        print(gg.plan_scale(graph, width=1.5, depth=1.5))

    Args:
        graph: the parent.
        width: as for `scale`.
        depth: as for `scale`.
        multiple: as for `scale`.
        only: as for `scale`.

    Raises:
        MutationError: as `scale`.
    """
    require_network(graph, "gg.plan_scale")
    return _tried(without_data(graph), width, depth, multiple, only).plan()


def _tried(
    graph: Graph, width: float, depth: float, multiple: int | None, only: str | Sequence[str], seed: int = 0
) -> _Trial:
    """The growths tried out on a graph, which may be without data."""
    for name, factor in (("width", width), ("depth", depth)):
        if not math.isfinite(factor) or factor < 1:
            raise MutationError(f"{name}={factor:g}: a factor of at least 1 is wanted; models do not shrink")
    if multiple is not None and multiple < 1:
        raise MutationError(f"multiple={multiple}: a whole number of at least 1 is wanted")
    trial = _Trial(graph, [only] if isinstance(only, str) else only, seed)
    if width > 1:
        trial.widen(width, multiple)
    if depth > 1:
        trial.deepen(depth)
    trial.check_patterns()
    return trial


class _Trial:
    """The mutations tried out one after the other.

    Attributes:
        graph: with the mutations that were admitted so far.
    """

    def __init__(self, graph: Graph, only: Sequence[str], seed: int) -> None:
        self.graph, self._only, self._seed = graph, only, seed
        self._names: list[str] = []
        self._parameters = graph.parameter_count
        self._growths: list[Growth] = []
        self._mutations: list[Mutation] = []
        self._refusals: list[Refusal] = []

    def plan(self) -> ScalePlan:
        parameters = (self._parameters, self.graph.parameter_count)
        return ScalePlan(tuple(self._growths), tuple(self._mutations), tuple(self._refusals), parameters)

    def check_patterns(self) -> None:
        """Refuse a pattern that fits none of the names that were looked at."""
        for pattern in self._only:
            if self._names and not any(fnmatchcase(name, pattern) for name in self._names):
                near = get_close_matches(pattern, self._names) or self._names[:3]
                raise MutationError(f"only={pattern!r} fits no channel group or stage, such as {', '.join(near)}")

    def _wanted(self, name: str) -> bool:
        self._names.append(name)
        return any(fnmatchcase(name, pattern) for pattern in self._only)

    def widen(self, factor: float, multiple: int | None) -> None:
        axes = _Axes(self.graph)
        grown: dict[Space, str] = {}
        chosen: list[tuple[Growth, list[str]]] = []
        # heads before head widths, of which they are the better choice
        for group in sorted(self.graph.groups, key=lambda group: group.space.label != "heads"):
            if not self._wanted(group.name):
                continue
            wanted = _rounded(group.size * factor, axes.multiple(group, multiple))
            other = next((grown[space] for space in axes.beside.get(group.space, ()) if space in grown), None)
            if group.frozen is not None:
                self._refuse(group.name, f"frozen: {group.frozen}")
            elif other is not None:
                self._refuse(group.name, f"a factor of an axis of which `{other}` grows")
            elif wanted <= group.size:
                self._refuse(group.name, f"{group.size} units times {factor:g} round to {group.size}")
            else:
                try:
                    text = widening(self.graph, group, wanted - group.size)  # how others grow makes no difference
                except Declined as declined:
                    self._refuse(group.name, str(declined))
                    continue
                grown[group.space] = group.name
                chosen.append((Growth(group.name, group.size, wanted, "units"), [text]))
        self._carry_out(chosen)

    def deepen(self, factor: float) -> None:
        stages = Modules(self.graph).stages()
        if not stages:
            self._refuse(
                "depth", "no sequence of blocks was found: modules `blocks.0`, `blocks.1`, ... that hold others"
            )
        for stage in stages:
            if not self._wanted(stage.name):
                continue
            wanted = _rounded(len(stage) * factor, 1)
            if wanted == len(stage):
                self._refuse(stage.name, f"{len(stage)} blocks times {factor:g} round to {wanted}")
                continue
            try:
                sites = stage.spread(wanted - len(stage))
            except Declined as declined:
                self._refuse(stage.name, str(declined))
                continue
            growth = Growth(stage.name, len(stage), wanted, "blocks")
            self._carry_out([(growth, [f"deepen({site}, kind=copy)" for site in sites])])

    def _carry_out(self, chosen: Sequence[tuple[Growth, list[str]]]) -> None:
        """Apply the mutations of all growths together; where one is declined after all, each by itself."""
        mutations = [parse_mutation(text) for _, texts in chosen for text in texts]
        try:
            self.graph = apply(self.graph, mutations, seed=self._seed)
        except Declined as declined:
            if len(chosen) > 1:
                for one in chosen:
                    self._carry_out([one])
                return
            # apply puts the mutation's text in front, which the refusal's site says already
            self._refuse(chosen[0][0].name, str(declined).removeprefix(f"{mutations[0]}: "))
            return
        self._mutations += mutations
        self._growths += [growth for growth, _ in chosen]

    def _refuse(self, name: str, reason: str) -> None:
        self._refusals.append(Refusal(name, reason))


class _Axes:
    """Where the spaces of a graph stand in the axes of its parameters.

    Attributes:
        beside: by space, those that are factors of one product with it.
    """

    def __init__(self, graph: Graph) -> None:
        self.beside: dict[Space, set[Space]] = {}
        self._whole: set[Space] = set()
        for value in graph.analysis.parameters.values():
            for term in value.axes:
                self._visit(normal(term), True)

    def multiple(self, group: Group, asked: int | None) -> int:
        """What a group's size is rounded up to: 1 for what is only ever a factor of an axis."""
        if group.space not in self._whole:
            return 1
        return asked or (MULTIPLE if group.size >= 2 * MULTIPLE else 1)

    def _visit(self, term: Term, whole: bool) -> None:
        if isinstance(term, Space):
            self._whole |= {term} if whole else set()
            return
        inner = whole and not isinstance(term, Product)
        for child in children(term):
            self._visit(child, inner)
        if isinstance(term, Product):
            for left, right in combinations(term.factors, 2):
                for a in leaves(left):
                    for b in leaves(right):
                        self.beside.setdefault(a, set()).add(b)
                        self.beside.setdefault(b, set()).add(a)


def _rounded(size: float, multiple: int) -> int:
    """To the nearest whole number, halves up, and from there up to a multiple."""
    return -(-math.floor(size + 0.5) // multiple) * multiple
