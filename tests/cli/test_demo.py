"""`demo`: its options reach the run; the run itself is tested beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.cli.commands import call, json_of
from tests.report.stages import stages


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the demo is called with, in place of running it."""
    seen: dict[str, Any] = {}

    def run_demo(folder: Path, seed: int, console: Console) -> list[Any]:
        seen.update(folder=folder, seed=seed)
        console.print("training")
        return stages()

    monkeypatch.setattr("graphgrow.demo.run_demo", run_demo)
    return seen


def test_the_story_goes_to_standard_output(told: dict[str, Any], tmp_path: Path) -> None:
    assert "training" in call("demo", "--out", tmp_path, "--seed", 3).stdout
    assert told == {"folder": tmp_path, "seed": 3}


def test_with_json_the_story_goes_to_standard_error(told: dict[str, Any]) -> None:
    assert json_of("demo") == [record.to_json() for record in stages()]
    assert told == {"folder": Path("runs/demo"), "seed": 0}
