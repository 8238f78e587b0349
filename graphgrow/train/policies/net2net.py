"""net2net: every group wider by the same share, by copies of units drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.graph import Graph
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy
from graphgrow.train.start import Start


@dataclass(frozen=True)
class Net2Net(GrowthPolicy):
    """Uniform widening by replication (Net2WiderNet, Chen, Goodfellow and Shlens, ICLR 2016).

    Attributes:
        noise: standard deviation of Gaussian noise on the copies, over each tensor's root mean square; above 0 the
            function is not preserved, and the gap is measured.
    """

    noise: float = 0.0
    name: ClassVar[str] = "net2net"
    summary: ClassVar[str] = "widen all groups by the same share, with copies of random units"

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """One candidate: all groups together."""
        share = self.growth**0.5 - 1  # FLOPs of a layer go with the product of two widths
        start = Start("noise", self.noise) if self.noise > 0 else Start()
        mutations = []
        for mutation in graph.mutations("split"):
            size = graph.group(mutation.site_name).size
            units = torch.randperm(size, generator=generator)[: max(1, round(share * size))].sort().values.tolist()
            mutations.append(f"split({mutation.site_name}, units={units})")
        if mutations:
            yield Candidate(tuple(mutations), {"share": share}, start)
