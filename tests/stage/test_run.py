"""One growth stage: what it returns, what it writes, and that a failure leaves no trace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import BenchmarkError, ExportError, NotPreserved, OptimizerError
from graphgrow.graph import Graph
from graphgrow.passes.widen import Widen
from graphgrow.records import StageRecord
from graphgrow.stage import count_flops, run, run_stage

QUICK: dict[str, Any] = {"index": 3, "name": "wider", "batch_sizes": (1,), "repeats": 2}


@dataclass(frozen=True)
class Careless(Widen):
    """A widening that also moves an old weight."""

    def rewrite(self, *args: Any) -> Any:
        result = super().rewrite(*args)
        with torch.no_grad():
            next(iter(args[1].module.parameters())).flatten()[0] += 0.1
        return result


def small_graph() -> Graph:
    return gg.trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(2, 4))


def adam(graph: Graph) -> torch.optim.Adam:
    """An optimizer that has made a step."""
    optimizer = torch.optim.Adam(graph.module.parameters(), lr=0.1)
    graph.module(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def test_a_stage_returns_and_writes_its_record(tmp_path: Path) -> None:
    graph = small_graph()
    child, record = run_stage(graph, "widen(0, extra=2)", folder=tmp_path / "runs", **QUICK)
    assert record.mutations == ("widen(0, extra=2)",)
    assert record.parameters == child.parameter_count > graph.parameter_count
    assert record.flops == count_flops(child)
    assert record.preserved is True
    assert record.max_error <= record.bound
    assert (record.accuracy_before, record.accuracy_after) == (None, None)
    assert sorted(file.name for file in (tmp_path / "runs").iterdir()) == ["03-wider.json", "03-wider.onnx"]
    stored = json.loads((tmp_path / "runs" / "03-wider.json").read_text())
    assert StageRecord.from_json(stored) == record
    assert record.export is not None
    assert record.export.path == "03-wider.onnx"
    assert record.benchmark is not None
    assert [one.batch_size for one in record.benchmark.latencies] == [1]


def test_the_child_is_that_of_apply_and_the_optimizer_is_its_own(tmp_path: Path) -> None:
    graph = small_graph()
    optimizer = adam(graph)
    wanted = gg.apply(graph, ["widen(0, extra=2)", "split(0)"], seed=7).module.state_dict()
    child, record = run_stage(
        graph, ["widen(0, extra=2)", "split(0)"], seed=7, optimizer=optimizer, folder=tmp_path, **QUICK
    )
    assert len(record.mutations) == 2
    found = child.module.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in child.module.parameters()}


def test_training_lies_between_the_two_evaluations(tmp_path: Path) -> None:
    told: list[str] = []

    def train(graph: Graph) -> None:
        told.append("train")

    def evaluate(graph: Graph) -> float:
        told.append("evaluate")
        return len(told) / 10

    graph = small_graph()
    child, record = run_stage(graph, [], train=train, evaluate=evaluate, folder=tmp_path, **QUICK)
    assert told == ["evaluate", "train", "evaluate"]
    assert (record.accuracy_before, record.accuracy_after) == (0.1, 0.3)
    assert record.mutations == ()
    assert record.preserved is True
    assert child.parameter_count == graph.parameter_count


def test_without_training_the_accuracy_is_measured_once(tmp_path: Path) -> None:
    _, record = run_stage(small_graph(), "split(0)", evaluate=lambda graph: 0.5, folder=tmp_path, **QUICK)
    assert record.accuracy_before == record.accuracy_after == 0.5


def test_what_is_not_preserved_is_refused_before_the_optimizer_and_the_folder(tmp_path: Path) -> None:
    graph = small_graph()
    optimizer = adam(graph)
    before = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    with pytest.raises(NotPreserved, match=r"widen\(0, extra=2\).*NOT preserved"):
        run_stage(graph, [Careless("0", 2)], optimizer=optimizer, share=False, folder=tmp_path / "runs", **QUICK)
    assert [id(parameter) for group in optimizer.param_groups for parameter in group["params"]] == before
    assert not (tmp_path / "runs").exists()


def test_an_unknown_optimizer_is_refused_before_the_folder(tmp_path: Path) -> None:
    graph = small_graph()
    optimizer = torch.optim.Rprop(graph.module.parameters())
    with pytest.raises(OptimizerError):
        run_stage(graph, "split(0)", optimizer=optimizer, folder=tmp_path / "runs", **QUICK)
    assert not (tmp_path / "runs").exists()


def test_a_failed_benchmark_leaves_the_files_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(small_graph(), [], folder=tmp_path, **QUICK)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*args: Any, **kwargs: Any) -> None:
        raise BenchmarkError("no time")

    monkeypatch.setattr(run, "benchmark", fail)
    with pytest.raises(BenchmarkError):
        run_stage(small_graph(), "split(0)", folder=tmp_path, **QUICK)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("index", "name"), [(0, "../up"), (0, ""), (0, "a b"), (-1, "base")])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, index: int, name: str) -> None:
    with pytest.raises(ExportError, match="letters, digits"):
        run_stage(small_graph(), [], folder=tmp_path, index=index, name=name)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ExportError, match="choose another folder"):
        run_stage(small_graph(), [], folder=tmp_path / "runs", **QUICK)
