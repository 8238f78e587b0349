"""`search` from a recipe to a network on disk."""

from __future__ import annotations

from pathlib import Path

import graphgrow as gg
from graphgrow.records import RoundRecord, StageRecord
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
    assert "sites exchange their operator; the gap: validation loss" in result.stdout
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


def test_what_is_refused(tmp_path: Path) -> None:
    assert "there is no recipe 'x'" in call("search", "--recipe", "x", "--out", tmp_path, code=1).stderr
