"""`scale`: a plan without a folder, a verified and saved model with one."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphgrow as gg
from tests.cli.commands import MLP, SHAPE, call, json_of, mlp


def test_without_a_folder_the_plan_is_shown() -> None:
    shown = call("scale", MLP, SHAPE, "--width", "1.5").stdout
    assert "1 width and 0 depths grow, from 51 to 75 parameters" in shown
    assert "6 -> 9 units" in shown
    assert "frozen: a model output" in shown


def test_it_is_grown_verified_and_saved(tmp_path: Path) -> None:
    shown = call("scale", MLP, SHAPE, "--width", "2", "--out", tmp_path / "wide", "--seed", 5).stdout
    assert "preserved (eval and train)" in shown
    grown = gg.load(tmp_path / "wide", model=mlp())
    assert [str(entry) for entry in grown.ledger] == ["widen(0, extra=6) seed=5"]
    again = json_of("scale", tmp_path / "wide", "--width", "1.5", "--base", MLP, "--out", tmp_path / "wider")
    assert again["mutations"] == ["widen(0, extra=6)"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--out", "x"], 2, "a factor above 1"),
        (["--width", "2", "--json"], 2, "add --out"),
        (["--width", "0.5"], 1, "do not shrink"),
        (["--width", "2", "--only", "stem*", "--out", "x"], 1, "fits no channel group or stage, such as 0"),
    ],
)
def test_what_is_refused(arguments: list[str], code: int, words: str) -> None:
    assert words in call("scale", MLP, SHAPE, *arguments, code=code).stderr
