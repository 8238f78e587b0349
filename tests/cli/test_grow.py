"""`grow`: a saved folder, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphgrow as gg
from graphgrow.verification.verdict import conclude
from tests.cli.commands import MLP, SHAPE, call, json_of, mlp


def test_mutations_are_applied_verified_and_saved(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    shown = call("grow", MLP, SHAPE, "widen(0, extra=2)", "split(0, units=[1])", "--out", folder, "--seed", 5).stdout
    assert "split(0, units=[1])" in shown
    assert "preserved (eval and train)" in shown
    assert f"next: graphgrow export {folder} --base {MLP} -o {folder}.onnx" in shown
    grown = gg.load(folder, model=mlp())
    assert [str(entry) for entry in grown.ledger] == ["widen(0, extra=2) seed=5", "split(0, units=[1]) seed=5"]


def test_a_folder_grows_again_and_json_tells_only_what_is_new(tmp_path: Path) -> None:
    call("grow", MLP, SHAPE, "widen(0, extra=2)", "--out", tmp_path / "a")
    found = json_of("grow", tmp_path / "a", "split(0)", "--out", tmp_path / "b", "--base", MLP)
    assert found["mutations"] == ["split(0)"]
    assert found["preserved"] is True
    assert found["parameters_after"] > found["parameters_before"]
    assert len(gg.load(tmp_path / "b", model=mlp()).ledger) == 2


@pytest.mark.parametrize(
    ("mutation", "words"),
    [
        ("widen(2, extra=2)", "frozen"),
        ("widen(00, extra=2)", "no channel group"),
        ("widen(0, extra=0)", "at least 1"),
        ("widen 0", "cannot read"),
    ],
)
def test_what_is_declined_saves_nothing(tmp_path: Path, mutation: str, words: str) -> None:
    result = call("grow", MLP, SHAPE, "split(0)", mutation, "--out", tmp_path / "x", code=1)
    assert words in result.stderr
    assert not (tmp_path / "x").exists()


def test_what_is_not_preserved_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "graphgrow.verification.verify.verify", lambda *_, **__: conclude([], (), ["a doubt"], [], None)
    )
    result = call("grow", MLP, SHAPE, "split(0)", "--out", tmp_path / "x", code=1)
    assert "undetermined: a doubt" in result.stderr
    assert "nothing was saved" in result.stderr
    assert not (tmp_path / "x").exists()


def test_the_folder_and_a_mutation_are_required() -> None:
    assert "--out" in call("grow", MLP, "split(0)", code=2).stderr
    assert "at least one mutation" in call("grow", MLP, "--out", "x", code=2).stderr


def test_a_recipe_is_applied_with_its_own_seeds(tmp_path: Path) -> None:
    recipe = tmp_path / "wider.txt"
    recipe.write_text("# first\nwiden(0, extra=2) seed=3\nsplit(0, units=[1])\n", encoding="utf-8")
    folder = tmp_path / "wide"
    call("grow", MLP, SHAPE, "split(0)", "--recipe", recipe, "--out", folder, "--seed", 5)
    ledger = gg.load(folder, model=mlp()).ledger
    assert [str(entry) for entry in ledger] == [
        "widen(0, extra=2) seed=3",
        "split(0, units=[1]) seed=5",
        "split(0) seed=5",
    ]
    recipe.write_text("widen(0)\n", encoding="utf-8")
    found = call("grow", MLP, SHAPE, "--recipe", recipe, "--out", tmp_path / "x", code=1).stderr
    assert "line 1 of" in found
    assert "lacks extra" in found
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_a_model_is_replaced_on_demand_alone(tmp_path: Path) -> None:
    call("grow", MLP, SHAPE, "widen(0, extra=2)", "--out", tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for command in (["grow", MLP, SHAPE, "split(0)"], ["scale", MLP, SHAPE, "--width", "2"]):
        refused = call(*command, "--out", tmp_path, code=1).stderr
        assert "is saved in" in refused
        assert "add --overwrite" in refused
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    call("grow", tmp_path, "split(0)", "--base", MLP, "--out", tmp_path, "--overwrite")  # into its own place
    assert len(gg.load(tmp_path, model=mlp()).ledger) == 2
    call("scale", MLP, SHAPE, "--width", "2", "--out", tmp_path, "--overwrite")
    assert len(gg.load(tmp_path, model=mlp()).ledger) == 1
