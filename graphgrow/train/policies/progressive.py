"""progressive: fixed stages, given beforehand; signals decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import torch

from graphgrow.errors import GraphGrowError, TrainingError
from graphgrow.graph import Graph
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy, paired, uniform_shares
from graphgrow.train.start import Start


@dataclass(frozen=True)
class Progressive(GrowthPolicy):
    """Stages that a recipe lists; where it lists none, every group is widened by fresh units, by the same share.

    What is listed is made as it is, or refused: the budget alone limits it.

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

    def __post_init__(self) -> None:
        given: tuple[Any, ...] = self.stages  # in recipes they may be anything
        for number, stage in enumerate(given, 1):
            if not isinstance(stage, tuple) or not stage:
                raise TrainingError(
                    f"stage {number} of `progressive` is {stage!r:.60}; give each stage as a list of mutations, as in "
                    '[["widen(stem, extra=4)"], ["split(stem)"]]'
                )

    @property
    def listed(self) -> int:
        """The stages of the list."""
        return len(self.stages)

    def require(self, graph: Graph) -> None:
        """Refuse a network on which the stages cannot be made one behind the other.

        Raises:
            TrainingError: names the first that cannot, with the reason.
        """
        done: list[str] = []
        for number, stage in enumerate(self.stages, 1):
            done.extend(stage)
            try:
                graph.cost(done)
            except GraphGrowError as error:
                listed = f"stage {number} of the {self.listed} listed" if self.listed > 1 else "the stage listed"
                raise TrainingError(f"{listed} cannot be made: {error}") from error

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """The stage that is next; of uniform widening the whole share or, where that is too much, a part of it."""
        if self.stages:
            if evidence.stage < len(self.stages):
                numbers = {"listed_stage": evidence.stage + 1.0}
                yield Candidate(self.stages[evidence.stage], numbers, Start(self.start), listed=True)
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
