"""progressive: fixed stages, given beforehand; signals decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.graph import Graph
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy
from graphgrow.train.start import Start


@dataclass(frozen=True)
class Progressive(GrowthPolicy):
    """Stages that a recipe lists; where it lists none, every group is widened by fresh units, by the same share.

    Attributes:
        stages: for each stage its mutations, as text.
        start: of new units: "fresh", "variance", or "he", which does not preserve the function.
    """

    stages: tuple[tuple[str, ...], ...] = ()
    start: str = "fresh"
    name: ClassVar[str] = "progressive"
    summary: ClassVar[str] = "fixed stages: those that are listed, or uniform widening by fresh units"

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """One candidate: the stage that is next."""
        if self.stages:
            if evidence.stage < len(self.stages):
                yield Candidate(self.stages[evidence.stage], {"stage": float(evidence.stage)}, Start(self.start))
            return
        share = self.growth**0.5 - 1
        mutations = []
        for mutation in graph.mutations("widen"):
            size = graph.group(mutation.site_name).size
            mutations.append(f"widen({mutation.site_name}, extra={max(1, round(share * size))})")
        if mutations:
            yield Candidate(tuple(mutations), {"share": share}, Start(self.start))
