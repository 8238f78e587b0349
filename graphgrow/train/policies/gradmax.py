"""gradmax: new units where they would learn fastest, along the gradients that they would get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.graph import Graph
from graphgrow.signals.gradmax import GradMaxSignal
from graphgrow.signals.watch import Signal
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy
from graphgrow.train.start import Start


@dataclass(frozen=True)
class GradMax(GrowthPolicy):
    """Widens hidden groups in the order of the gradient that new units would get for each added FLOP.

    After GradMax (Evci et al., ICLR 2022), in its mirror: incoming weights along the right singular vectors and reading
    weights of zero, which is exact behind any activation and norm, and gives the reading weights the largest gradient.

    Attributes:
        share: of a group's units that one mutation adds.
    """

    share: float = 0.5
    name: ClassVar[str] = "gradmax"
    summary: ClassVar[str] = "new units where their gradient would be largest, along its singular vectors"
    wants: ClassVar[str] = "a group that one linear map or convolution writes and one reads"

    def signals(self, graph: Graph, seed: int) -> Mapping[str, Signal]:
        """Singular vectors of what new units would learn."""
        return {"directions": GradMaxSignal(graph, seed=seed)}

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """Each hidden group, the largest gradient for each added FLOP first."""
        ranked = []
        for name, directions in evidence.directions.items():
            count = min(max(1, round(self.share * graph.group(name).size)), len(directions.values))
            mutation = f"widen({name}, extra={count})"
            flops = max(1, graph.cost(mutation).flops)
            score = directions.score(count)
            rows = {directions.weight: directions.incoming[:count]} if directions.weight is not None else {}
            start = Start("directions", incoming=rows, columns=frozenset(rows if directions.columns else ()))
            numbers = {"gradient": score, "gradient_per_mflop": 1e6 * score / flops, "units": float(count)}
            ranked.append(Candidate((mutation,), numbers, start))
        yield from sorted(ranked, key=lambda candidate: -candidate.numbers["gradient_per_mflop"])
