"""Stages of a training: what is recorded of a growth, of a way back, and what a state holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from graphgrow.graph import Graph
from graphgrow.records import StageRecord
from graphgrow.train.grower import Grower
from graphgrow.train.policy import make_policy
from graphgrow.train.schedule import Interval
from graphgrow.train.stages import Stages
from tests.train import small


def test_stages_are_counted_named_and_kept_in_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[torch.Tensor] = []

    def end_stage(graph: Graph, record: StageRecord, **_: Any) -> StageRecord:
        exported.append(graph.module(small.INPUTS))
        return record

    monkeypatch.setattr("graphgrow.train.stages.end_stage", end_stage)
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, "net2net", when=Interval(1), rollback_after=1, verify=False)
    stages = Stages(grower, optimizer, tmp_path)
    stages.begin()
    proposal = grower.propose(0.5)
    assert proposal is not None
    stages.note(accuracy_after=0.25)
    assert stages.end().accuracy_after == 0.25
    stages.begin(proposal)
    assert stages.present is not None
    assert (stages.present.index, stages.present.mutations, stages.present.preserved) == (1, proposal.mutations, True)
    assert stages.present.parameters == proposal.parameters == grower.graph.parameter_count
    again = Stages(Grower(graph, None), optimizer, None)
    again.restore(json.loads(json.dumps(stages.state())))
    assert (again.ended, again.present) == (stages.ended, stages.present)
    small.epoch(grower, optimizer)
    trained = grower.module(small.INPUTS)
    assert grower.propose(0.9) is None
    assert torch.equal(exported[-1], trained), "what did not pay is exported as it was before it is taken back"
    assert not torch.allclose(grower.module(small.INPUTS), trained)
    stages.begin()
    assert [record.name for record in (*stages.ended, stages.present)] == ["base", "net2net", "rolled-back"]
    assert stages.present.parameters == graph.parameter_count
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in graph.module.parameters()}


def test_a_start_that_does_not_preserve_is_recorded_as_such() -> None:
    graph = small.graph()
    grower = Grower(graph, None, make_policy("net2net", noise=0.1), when=Interval(1))
    stages = Stages(grower, None, None)
    stages.begin()
    stages.end()
    proposal = grower.propose(0.5)
    assert proposal is not None
    stages.begin(proposal)
    assert stages.present is not None
    assert stages.present.preserved is False
    assert grower.decisions[-1].numbers["gap"] > 1e-3
