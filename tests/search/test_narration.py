"""What an evolution shows: the live screen at several moments, and bars for numbers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from graphgrow.search.candidates import blank
from graphgrow.search.evolve import begin, evolve
from graphgrow.search.job import Job
from graphgrow.search.narration import Narration, sparkline
from graphgrow.search.recipe import Goal, Task
from tests.search import landscape
from tests.search.test_evolve import Here


class Seen(Narration):
    """Renders the screen at every event."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, landscape.recipe(), Here())
        self.screens: list[str] = []

    def evaluated(self, record: object) -> None:
        super().evaluated(record)  # type: ignore[arg-type]
        console = Console(file=io.StringIO(), width=90)
        console.print(self.screen())
        self.screens.append(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_screen_follows_the_run(tmp_path: Path) -> None:
    out = io.StringIO()
    story = Seen(Console(file=out, width=90))
    with begin(landscape.recipe(), tmp_path) as study, story.live():
        evolve(landscape.recipe(), study, Here(), story)
    assert "generation 0 of 3" in story.screens[0]
    assert "1 of 1" in story.screens[0]
    last = story.screens[-1]
    assert "generation 3 of 3" in last
    assert "5 of 5" in last
    assert "hypervolume" in last
    assert "accuracy" in last.splitlines()[1]
    assert "3 workers: idle" in last
    lines = out.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("generation")] == [
        f"generation {n}" for n in range(4)
    ]
    assert "candidate 6 failed: the seventh" in out.getvalue()


def test_why_there_is_no_hypervolume_is_said(tmp_path: Path) -> None:
    """It read 0.0000, and nothing else."""
    out = io.StringIO()
    recipe = landscape.recipe(generations=1, objectives=(Goal("accuracy"), Goal("flops", worst=50.0)))
    with begin(recipe, tmp_path) as study:
        evolve(recipe, study, Here(), Narration(Console(file=out, width=200), recipe, Here()))
    assert "hypervolume 0.0000 (no candidate is within the `worst` of every objective), best" in out.getvalue()


def test_what_was_said_is_not_taken_for_markup() -> None:
    out = io.StringIO()
    story = Narration(Console(file=out, width=200), landscape.recipe(task=Task("mine:fire", "mine:fire")), Here(1))
    failed = replace(blank(Job("f", landscape.recipe(), 3)), reason="RuntimeError: [enforce fail at x.cpp:1] err == 0")
    story.evaluated(failed)
    story.opening("runs/[bold]", 0)
    said = out.getvalue()
    assert "candidate 3 failed: RuntimeError: [enforce fail at x.cpp:1] err == 0" in said
    assert "evolution of mine:fire on mine:fire: validation accuracy" in said
    assert "3 generations of 5, 16 candidates, 1 worker; the study is runs/[bold]" in said


def test_one_of_a_kind_is_no_plural() -> None:
    out = io.StringIO()
    story = Narration(Console(file=out, width=200), landscape.recipe(generations=1, offspring=1), Here())
    story.opening("runs/one", 1)
    said = out.getvalue()
    assert "1 generation of 1, 2 candidates, 3 workers; the study is runs/one" in said
    assert "going on with a study of 1 evaluation\n" in said


def test_sparkline() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert len(sparkline([1.0] * 100)) == 60
