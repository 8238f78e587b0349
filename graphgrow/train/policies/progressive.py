"""progressive: fixed stages, given beforehand; signals decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import torch

from graphgrow.graph import Graph
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy, paired, uniform_shares
from graphgrow.train.start import Start


@dataclass(frozen=True)
class Progressive(GrowthPolicy):
    """Stages that a recipe lists; where it lists none, every group is widened by fresh units, by the same share.

    Attributes:
        stages: for each stage its mutations, as text.
        pairs: whether fresh units come in pairs that are read with v and -v, rather than each with zero.
        start: of new units: "fresh", "variance", or "he", which does not preserve the function.
    """

    stages: tuple[tuple[str, ...], ...] = ()
    pairs: bool = True
    start: str = "variance"
    most: int = 1
    name: ClassVar[str] = "progressive"
    summary: ClassVar[str] = "fixed stages: those that are listed, or uniform widening by fresh units"
    wants: ClassVar[str] = "a stage that is listed and not done, or a group that can be widened"

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """The stage that is next; of uniform widening the whole share or, where that is too much, a part of it."""
        if self.stages:
            if evidence.stage < len(self.stages):
                yield Candidate(self.stages[evidence.stage], {"stage": float(evidence.stage)}, Start(self.start))
            return
        offered = [(mutation.site_name, graph.group(mutation.site_name).size) for mutation in graph.mutations("widen")]
        for share in uniform_shares(self.growth):
            counts = [(name, max(1, round(share * size))) for name, size in offered]
            made = [
                paired(graph, name, count) if self.pairs else (f"widen({name}, extra={count})",)
                for name, count in counts
            ]
            if made:
                yield Candidate(tuple(chain.from_iterable(made)), {"share": share}, Start(self.start))
