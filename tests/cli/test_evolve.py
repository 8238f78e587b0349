"""`evolve` from a recipe to a front on disk, twice, and interrupted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import graphgrow as gg
from graphgrow.records import CandidateRecord, StageRecord
from graphgrow.search.evolve import evolve
from graphgrow.search.study import read_study
from tests.cli.commands import call, json_of
from tests.search.small import model

RECIPE = """
population = 2
offspring = 2
generations = 1
[task]
model = "tests.search.small:model"
data = "tests.search.small:data"
[[objectives]]
name = "accuracy"
[[objectives]]
name = "parameters"
[budget]
base = 30
child = 20
[variation]
rates = { deepen = 0, add-branch = 0 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("evolve")
    (folder / "small.toml").write_text(RECIPE, encoding="utf-8")
    return folder, json_of("evolve", "--recipe", folder / "small.toml", "--out", folder / "study", "--workers", 1)


def test_the_front_is_saved_exported_and_benchmarked(run: tuple[Path, Any]) -> None:
    folder, told = run
    front = [CandidateRecord.from_json(record) for record in told["front"]]
    assert front
    assert told["choice"] in [record.number for record in front]
    for place, record in enumerate(front):
        stem = folder / "study" / "front" / f"{place:02d}-candidate-{record.number}"
        graph = gg.load(stem, model())
        assert graph.parameter_count == record.parameters
        stage = StageRecord.from_json(told["test"][str(record.number)])
        assert stage.export is not None
        assert stage.benchmark is not None
        assert 0 <= (stage.accuracy_after or 0) <= 1
        assert stem.with_name(f"{stem.name}.onnx").stat().st_size == stage.export.bytes
    for name in ("front", "lineage"):
        assert (folder / "study" / f"{name}.png").stat().st_size > 10_000
        assert (folder / "study" / f"{name}.svg").exists()


def test_what_a_library_prints_is_not_in_the_json(run: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, told = run
    real = evolve

    def chatting(*args: Any) -> Any:
        sys.stdout.write("(raylet) a worker died\n")  # as Ray does
        return real(*args)

    monkeypatch.setattr("graphgrow.search.evolve.evolve", chatting)
    monkeypatch.setattr("graphgrow.search.finish.run_stage", _no_export)
    again = json_of("evolve", "--recipe", folder / "small.toml", "--out", folder / "study", "--workers", 1)
    assert again["front"] == told["front"]


def test_the_same_command_again_evaluates_nothing(run: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, told = run
    monkeypatch.setattr("graphgrow.search.pool.Pool.start", lambda *_: pytest.fail("nothing is left to evaluate"))
    monkeypatch.setattr("graphgrow.search.finish.run_stage", _no_export)
    result = call("evolve", "--recipe", folder / "small.toml", "--out", folder / "study", "--weights", "1,9")
    assert "going on with a study of 3 evaluations" in result.stdout
    assert "generation 1: front of" in result.stdout
    assert "candidate generation %" in " ".join(result.stdout.split())
    assert str(told["choice"]) in result.stdout


def _no_export(graph: gg.Graph, mutations: Any, name: str, evaluate: Any, **options: Any) -> Any:
    accuracy = evaluate(graph)
    return graph, StageRecord(0, name, (), 1, 1, accuracy, accuracy, 0.0, True, 0.0, 0.0)


def test_ctrl_c_keeps_the_study_and_exits_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.toml").write_text(RECIPE, encoding="utf-8")
    closed = []

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphgrow.search.pool.Pool.wait", interrupted)
    monkeypatch.setattr("graphgrow.search.pool.Pool.start", lambda *_: None)
    monkeypatch.setattr("graphgrow.search.pool.Pool.close", lambda *_: closed.append(1))
    result = call("evolve", "--recipe", tmp_path / "small.toml", "--out", tmp_path / "study", code=130)
    assert "stopped: 0 evaluations are kept; the same command goes on with them" in result.stderr
    assert closed == [1]
    assert read_study(tmp_path / "study")[1] == {}


def test_what_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert "there is no recipe 'x'" in call("evolve", "--recipe", "x", "--out", out, code=1).stderr
    assert "there is no engine 'mpi'" in call("evolve", "--recipe", "digits", "--out", out, "--engine", "mpi", code=1).stderr  # fmt: skip  # noqa: E501
    wrong = call("evolve", "--recipe", "digits", "--out", out, "--weights", "1,-2", code=2)
    assert "2 positive numbers are wanted" in wrong.stderr
