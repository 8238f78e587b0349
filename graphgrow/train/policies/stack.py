"""stack: twice as deep, by a copy behind every block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.graph import Graph
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy


@dataclass(frozen=True)
class Stack(GrowthPolicy):
    """Doubles the depth: behind each block a copy of it, which starts as identity.

    Shallow nets that are stacked to deep ones (Gong et al., "Efficient training of BERT by progressively stacking",
    ICML 2019; Du et al., "Stacking your transformers", NeurIPS 2024) lose what they compute; here the last maps of
    each copy are zero (Wu et al., "LLaMA Pro", ACL 2024). A block is what `deepen` can copy and no larger copy holds.
    """

    most: int = 1
    name: ClassVar[str] = "stack"
    summary: ClassVar[str] = "twice as deep: a copy behind every block, which starts as identity"
    wants: ClassVar[str] = "a block that can be copied"

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """All blocks or, where that is too much, every second or every fourth."""
        copies = {one.site_name: one for one in graph.mutations("deepen") if getattr(one, "kind", None) == "copy"}
        blocks = [one for name, one in copies.items() if not any(_within(name, other) for other in copies)]
        for step in (1, 2, 4):
            if chosen := blocks[step - 1 :: step]:
                yield Candidate(tuple(map(str, chosen)), {"blocks": float(len(chosen))})


def _within(path: str, other: str) -> bool:
    return path.startswith(f"{other}.")
