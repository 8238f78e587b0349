"""The files that docs/search.md shows for a model and data of one's own, run as they stand, with less training."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

import graphgrow as gg
from tests.cli.commands import call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "search.md"


def shown(language: str) -> list[str]:
    section = PAGE.read_text(encoding="utf-8").partition("## A model and data of your own")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def test_the_files_of_the_page_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,), (evolution, choosing) = shown("python"), shown("toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    (tmp_path / "mine.py").write_text(program, encoding="utf-8")
    (tmp_path / "mine.evolve.toml").write_text(
        evolution.replace("= 300", "= 5").replace("= 150", "= 2").replace("offspring = 6", "offspring = 1"),
        encoding="utf-8",
    )
    (tmp_path / "mine.search.toml").write_text(
        choosing.replace("= 300", "= 5").replace("= 150", "= 2").replace("= 200", "= 8"), encoding="utf-8"
    )
    offered = call("mutations", "mine:model", "--input", "1,1,8,8", "--pass", "mix-operators").stdout
    assert "mix-operators(2, choices=[gelu, silu, tanh, identity])" in offered
    evolved = call(
        "evolve", "--recipe", "mine.evolve.toml", "--out", "runs/mine", "--generations", 0, "--workers", 1
    ).stdout
    assert "evolution of mine:model on mine:data: validation accuracy, latency with onnxruntime" in evolved
    call("search", "--recipe", "mine.search.toml", "--out", "runs/chosen")
    winner = gg.load(tmp_path / "runs" / "chosen" / "chosen", importlib.import_module("mine").model())
    assert any(entry.mutation.startswith("settle-operators") for entry in winner.ledger)
