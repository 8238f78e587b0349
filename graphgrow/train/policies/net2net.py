"""net2net: every group wider by the same share, by copies of units drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.errors import Declined
from graphgrow.graph import Graph
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy, uniform_shares
from graphgrow.train.start import Start


@dataclass(frozen=True)
class Net2Net(GrowthPolicy):
    """Uniform widening by replication (Net2WiderNet, Chen, Goodfellow and Shlens, ICLR 2016).

    Groups under a layer norm, which admits copies of all units or of none, are widened by as many fresh units.

    Attributes:
        noise: standard deviation of Gaussian noise on the copies, over each tensor's root mean square; above 0 the
            function is not preserved, and the gap is measured.
    """

    noise: float = 0.0
    most: int = 1
    name: ClassVar[str] = "net2net"
    summary: ClassVar[str] = "widen all groups by the same share, with copies of random units"
    wants: ClassVar[str] = "a group of which units can be copied"

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """All groups together, by the whole share or, where that is too much, by a half or a quarter of it."""
        start = Start("noise", self.noise) if self.noise > 0 else Start()
        offered = [(mutation.site_name, graph.group(mutation.site_name).size) for mutation in graph.mutations("split")]
        for share in uniform_shares(self.growth):
            mutations = []
            for name, size in offered:
                drawn = torch.randperm(size, generator=generator)[: max(1, round(share * size))]
                mutations.append(_copied(graph, name, drawn.sort().values.tolist()))
            if mutations:
                yield Candidate(tuple(mutations), {"share": share}, start)


def _copied(graph: Graph, name: str, units: list[int]) -> str:
    """The split of some units or, where a norm admits none (a layer norm wants all or none), as many fresh units."""
    split = f"split({name}, units={units})"
    try:
        graph.cost(split)
    except Declined:
        return f"widen({name}, extra={len(units)})"
    return split
