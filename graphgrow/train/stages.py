"""The stages of a training that grows: each from one growth to the next, verified, exported, benchmarked, recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from graphgrow.graph import Graph
from graphgrow.records import StageRecord
from graphgrow.stage import begin_stage, end_stage
from graphgrow.train.grower import Grower
from graphgrow.train.proposal import Proposal
from graphgrow.train.ranks import Ranks

BASE, BACK = "base", "rolled-back"


class Stages:
    """Carries a grower's proposals out as stages.

    Args:
        grower: whose proposals they are; a growth that it takes back ends its stage.
        optimizer: over its graph's parameters; carried over once a child is verified.
        folder: receives `NN-name.onnx` and `NN-name.json` of each stage; None keeps the records in memory alone.
        repeats: timed runs of each exported file.

    Attributes:
        ended: the records of the stages that are over.
        present: the record of the one that is going on.
    """

    def __init__(self, grower: Grower, optimizer: Optimizer | None, folder: Path | None, repeats: int = 50) -> None:
        self._grower, self._optimizer, self._folder, self._repeats = grower, optimizer, folder, repeats
        self._ranks = Ranks.present()
        grower.going_back = self.end
        self.ended: list[StageRecord] = []
        self.present: StageRecord | None = None

    def begin(self, proposal: Proposal | None = None) -> None:
        """Begin a stage: the base's, that of a network that was gone back to, or that of a proposal.

        A proposal's child is verified first, what is new starts, then the optimizer is carried over.

        Raises:
            NotPreserved: if the child computes another function; nothing has changed then.
            Declined, OptimizerError: as `gg.apply` does; likewise.
        """
        name = self._grower.policy.name if proposal else BACK if self.ended else BASE
        start = None
        if proposal is not None:
            self._grower.prepare()
            start = self._grower.start(proposal)
        child, record = begin_stage(
            self._grower.graph,
            () if proposal is None else proposal.mutations,
            index=len(self.ended),
            name=name,
            seed=self._grower.seed_of_stage,
            optimizer=None if proposal is None else self._optimizer,
            start=start,
        )
        if proposal is not None:
            self._grower.follow(child, proposal)
            if "gap" in self._grower.decisions[-1].numbers:  # a start that is declared not to preserve the function
                record = replace(record, preserved=False)
        self.present = record

    def note(self, **facts: Any) -> StageRecord:
        """Put facts into the record of the present stage."""
        assert self.present is not None
        self.present = replace(self.present, **facts)
        return self.present

    def end(self, graph: Graph | None = None) -> StageRecord:
        """End the stage: export, benchmark and write the record, where there is a folder.

        Args:
            graph: what is exported; the grower's newest by default.

        Raises:
            ExportError, BenchmarkError: as `run_stage` does.
        """
        assert self.present is not None
        record: StageRecord = self.present
        if self._folder is not None:
            folder, ended = self._folder, graph or self._grower.graph
            record = self._ranks.decided(lambda: end_stage(ended, record, folder=folder, repeats=self._repeats))
        self.ended.append(record)
        self.present = None
        return record

    def state(self) -> dict[str, Any]:
        """What `restore` needs, plain."""
        present = None if self.present is None else self.present.to_json()
        return {"ended": [record.to_json() for record in self.ended], "present": present}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        ended: Iterable[Any] = state["ended"]
        self.ended = [StageRecord.from_json(record) for record in ended]
        self.present = None if state["present"] is None else StageRecord.from_json(state["present"])
