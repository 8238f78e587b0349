"""random: the null. Groups, passes and connections are drawn; nothing is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.graph import Graph
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy


@dataclass(frozen=True)
class Random(GrowthPolicy):
    """Draws what to do: splits, widenings and connections in random order.

    Attributes:
        share: of a group's units that one mutation adds.
        connections: so many of one stage at most.
    """

    share: float = 0.5
    connections: int = 1
    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "what to grow is drawn: the null that others have to beat"

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """Every group once, split or widened as drawn, and some connections, in random order."""
        found = []
        for mutation in graph.mutations("split"):
            size = graph.group(mutation.site_name).size
            count = max(1, round(self.share * size))
            if float(torch.rand((), generator=generator)) < 0.5:
                found.append(f"widen({mutation.site_name}, extra={count})")
            else:
                units = torch.randperm(size, generator=generator)[:count].sort().values.tolist()
                found.append(f"split({mutation.site_name}, units={units})")
        skips = [str(mutation) for mutation in graph.mutations("add-skip")]
        drawn = torch.randperm(len(skips), generator=generator)[: self.connections].tolist()
        found += [skips[index] for index in drawn]
        for index in torch.randperm(len(found), generator=generator).tolist():
            yield Candidate((found[index],), {})
