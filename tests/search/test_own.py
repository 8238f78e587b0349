"""A model, data and passes of one's own: the files that docs/search.md shows, with less training; a pass in workers."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import graphgrow as gg
from graphgrow.errors import SearchError
from graphgrow.rewrite import registry
from graphgrow.search.evolve import begin, evolve
from graphgrow.search.pool import Pool
from graphgrow.search.recipe import Budget, Evolution, Goal, Task, Variation
from graphgrow.search.variation import require_known_to_workers
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


PASS = """
import dataclasses
from typing import ClassVar
import graphgrow as gg
from graphgrow.passes.widen import Widen

@gg.register_pass
@dataclasses.dataclass(frozen=True)
class Broaden(Widen):
    name: ClassVar[str] = "broaden"
"""


def test_workers_know_a_pass_that_the_recipe_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_passes_of_a_test.py").write_text(PASS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_OWN", {})
    task = Task("tests.search.small:model", "tests.search.small:data", passes=("own_passes_of_a_test",))
    assert list(registry.own_passes()) == ["broaden"]
    rates = {name: float(name == "broaden") for name in gg.pass_names()}
    recipe = Evolution(
        task, (Goal("loss"),), population=1, offspring=1, generations=1, budget=Budget(base=1, child=1),
        variation=Variation(rates=rates, most=1),
    )  # fmt: skip
    workers = Pool(1)
    try:
        with begin(recipe, tmp_path / "study") as study:
            child = evolve(recipe, study, workers).results[1, 0]
            assert child.status == "done", child.reason
            assert child.mutations[0].startswith("broaden(")
    finally:
        workers.close()
    known_here_alone = replace(recipe, task=replace(task, passes=()))
    said = r"`broaden` is registered in own_passes_of_a_test, .* write passes = ..own_passes_of_a_test.. under .task."
    with begin(known_here_alone, tmp_path / "other") as study, pytest.raises(SearchError, match=said):
        evolve(known_here_alone, study, workers)
    monkeypatch.setattr(registry.passes()["broaden"], "__module__", "__main__")
    with pytest.raises(SearchError, match=r"in __main__, .*; move it to a module, and write passes = "):
        require_known_to_workers(known_here_alone)
    require_known_to_workers(replace(known_here_alone, variation=Variation(rates={"broaden": 0.0})))
