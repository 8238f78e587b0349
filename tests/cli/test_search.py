"""`search` from a recipe to a network on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import graphgrow as gg
from graphgrow.records import RoundRecord, StageRecord
from graphgrow.search import alternation
from tests.cli.commands import call, json_of
from tests.search.small import model

RECIPE = """
base = 20
finish = 10
choices = ["conv-5", "gelu"]
[task]
model = "tests.search.small:model"
data = "tests.search.small:data"
[alternation]
steps = 12
"""


def test_the_network_is_saved_exported_and_its_choices_drawn(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE, encoding="utf-8")
    out = tmp_path / "out"
    result = call("search", "--recipe", tmp_path / "small.toml", "--out", out, "--rounds", 1)
    assert "mix-operators(0, choices=[conv-5])" in result.stdout
    assert "the gap: validation loss" in result.stdout
    assert "test accuracy: base" in result.stdout
    graph = gg.load(out / "chosen", model())
    assert len(graph.ledger) >= 4
    assert (out / "00-chosen.onnx").exists()
    assert (out / "choices.png").stat().st_size > 10_000


def test_json(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE.replace('"gelu"', '"silu"'), encoding="utf-8")
    told = json_of("search", "--recipe", tmp_path / "small.toml", "--out", tmp_path / "out", "--seed", 1)
    (record,) = [RoundRecord.from_json(item) for item in told["rounds"]]
    assert [choice.names for choice in record.choices] == [("present", "conv-5"), ("present", "silu")]
    assert StageRecord.from_json(told["stage"]).accuracy_after == record.test


def test_the_same_command_goes_on_where_ctrl_c_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(f"save_every = 5\n{RECIPE}", encoding="utf-8")
    command = ("search", "--recipe", recipe, "--out", tmp_path / "out")
    real, calls = alternation._step, 0

    def interrupted(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(alternation, "_step", interrupted)
        call(*command, code=130)
    monkeypatch.setattr("graphgrow.stage.run.run_stage", _no_export)
    went_on = call(*command).stdout
    assert "going on with round 0, behind step 5\n" in went_on
    assert "base: " not in went_on
    assert "sites exchange their operator" in went_on
    newest = max((tmp_path / "out" / "checkpoints").glob("*.json"))
    newest.write_text("{}", encoding="utf-8")
    again = call(*command).stdout
    assert f"passed over a checkpoint: {newest} is damaged" in again
    assert "going on with round 0, behind step 10\n" in again
    assert "going on behind the last round\n" in call(*command).stdout
    other = call(*command, "--rounds", 2, code=1).stderr
    assert "another search" in other
    assert "rounds: 1 there, 2 here" in other


def _no_export(graph: gg.Graph, mutations: Any, name: str, evaluate: Any, **options: Any) -> Any:
    accuracy = evaluate(graph)
    return graph, StageRecord(0, name, (), 1, 1, accuracy, accuracy, 0.0, True, 0.0, 0.0)


def test_what_is_refused(tmp_path: Path) -> None:
    assert "there is no recipe 'x'" in call("search", "--recipe", "x", "--out", tmp_path, code=1).stderr


def test_model_and_data_in_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_task.py").write_text("from tests.search.small import data, model\n")
    (tmp_path / "mine.toml").write_text(RECIPE.replace("tests.search.small", "my_own_task"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    call("search", "--recipe", "mine.toml", "--out", "out")
    assert (tmp_path / "out" / "chosen").is_dir()
