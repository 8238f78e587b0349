"""Fronts and lineages as tables, graphs and figures, from records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from graphgrow.errors import GraphGrowError
from graphgrow.records import CandidateRecord, GenerationRecord
from graphgrow.report import Scale, front_figure, front_table, lineage, lineage_figure
from graphgrow.report.figure import drawing
from tests.report.stages import stages

SCALES = [
    Scale("accuracy", "validation accuracy", "accuracy %", "%", 100.0, larger_is_better=True),
    Scale("latency", "time", "ms", "ms", decimals=2),
]


def candidate(number: int, age: int, parents: tuple[int, ...], accuracy: float, latency: float) -> CandidateRecord:
    values, spread = {"accuracy": accuracy, "latency": latency}, {"latency": 0.5}
    origin = ("base", "mutation", "crossover")[len(parents)]
    words = ("widen(stem, extra=1)",)
    return CandidateRecord(
        number, 0, age, parents, origin, words, "done", "", values, spread, 1234, 5678, True, 0.0, 1.0, 10, {}
    )


RECORDS = [
    candidate(0, 0, (), 0.5, 1.0),
    candidate(1, 1, (0,), 0.75, 2.0),
    candidate(2, 1, (0,), 0.4, 3.0),
    candidate(3, 2, (1, 2), 0.9, 4.0),
]
FRONT = [RECORDS[3], RECORDS[1], RECORDS[0]]
GENERATIONS = [GenerationRecord(n, 1 + n, 0, (0,), (0,), 0.1 * n) for n in range(3)]


def text(*args: object, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(front_table(*args))  # type: ignore[arg-type]
    return captured.get()


def test_the_table_has_values_units_and_spread() -> None:
    lines = text(FRONT, SCALES).splitlines()
    assert lines[0].split() == ["accuracy"]
    assert lines[1].split() == ["candidate", "generation", "%", "ms"]
    assert lines[2].split() == ["3", "2", "90.0", "4.00", "±", "0.25"]
    assert len(lines) == 5


def test_the_table_with_exports() -> None:
    stage = stages()[-1]
    table = text(FRONT, SCALES, {3: stage})
    assert "…" not in table, "it fits a terminal of 80 columns"
    assert "…" not in text(FRONT, SCALES[:1], {3: stage}, width=60)
    head, units, first, second, _ = table.splitlines()
    assert head.split() == ["accuracy", "test", "latency", "ONNX"]
    assert units.split() == ["candidate", "generation", "%", "ms", "parameters", "%", "ms", "kB"]
    assert "1,234" in first
    assert first.split()[-3] == f"{100 * (stage.accuracy_after or 0):.1f}"
    assert second.split()[-1] == "1,234", "what was not measured is empty"


def test_an_objective_is_not_overwritten_by_what_the_export_gave() -> None:
    scales = [SCALES[0], Scale("latency", "time", "latency ms", "ms", decimals=1), Scale("n", "n", "parameters", "")]
    records = [replace(record, objectives={**record.objectives, "n": 77.0}) for record in FRONT]
    _, units, first, *_ = text(records, scales, {3: stages()[-1]}).splitlines()
    assert units.split() == ["candidate", "generation", "%", "ms", "parameters", "%", "kB"]
    assert first.split()[:7] == ["3", "2", "90.0", "4.0", "±", "0.2", "77.0"]


def test_narrow_terminals_name_what_they_do_not_show() -> None:
    goals = [Scale(name, name, f"{name} units", "units") for name in ("accuracy", "latency", "third", "fourth")]
    for width in (40, 50, 60, 100):
        lines = text(FRONT, goals, {3: stages()[-1]}, width=width).splitlines()
        assert all(len(line) <= width for line in lines)
        assert not any("…" in line for line in lines)
        assert {"accuracy", "3"} <= {*lines[0].split(), *lines[2].split()}
        told = " ".join(lines).partition("(wider terminals also show ")[2]
        shown = {*lines[0].split(), *lines[1].split()}
        assert ("fourth units" in told) == ("fourth" not in shown)
        assert ("generation" in told) == ("generation" not in shown)
        assert ("(" in " ".join(lines)) == (width < 100)


def test_the_lineage_is_a_tree_with_second_parents() -> None:
    graph = lineage(RECORDS)
    assert sorted(graph.edges) == [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert graph.edges[1, 3]["inherited"] is True
    assert graph.edges[2, 3]["inherited"] is False
    assert graph.nodes[3]["objectives"] == {"accuracy": 0.9, "latency": 4.0}
    assert graph.edges[0, 1]["mutations"] == ("widen(stem, extra=1)",)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_figures_are_written(suffix: str, tmp_path: Path) -> None:
    first = front_figure(RECORDS, FRONT, GENERATIONS, SCALES, tmp_path / f"front.{suffix}")
    second = lineage_figure(lineage(RECORDS), [3, 1, 0], SCALES[0], tmp_path / f"lineage.{suffix}")
    one = front_figure(RECORDS, FRONT, GENERATIONS, SCALES[:1], tmp_path / f"one.{suffix}")
    if suffix == "svg":
        for file, words in ((first, ["time, ms", "Hypervolume", "dominated"]), (second, ["generation", "ancestor"])):
            assert all(word in file.read_text(encoding="utf-8") for word in words)
        assert ">candidate<" in one.read_text(encoding="utf-8")


def panels_of(monkeypatch: pytest.MonkeyPatch, scales: Sequence[Scale], path: Path) -> list[Any]:
    """The panels of a figure of a front, as they were drawn."""
    kept: list[Any] = []

    @contextmanager
    def keeping(*args: Any, **options: Any) -> Iterator[list[Any]]:
        with drawing(*args, **options) as panels:
            kept.extend(panels)
            yield panels

    monkeypatch.setattr("graphgrow.report.front.drawing", keeping)
    front_figure(RECORDS, FRONT, GENERATIONS, scales, path)
    return kept


@pytest.mark.parametrize(
    ("order", "arrow", "drawstyle"),
    [((0, 1), "↖", "steps-post"), ((1, 0), "↘", "steps-pre"), ((1, 2), "↙", "steps-post")],
)
def test_the_line_bounds_what_the_front_attains(
    order: tuple[int, int], arrow: str, drawstyle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = [*SCALES, Scale("accuracy", "error", "error", "")]
    panel, _ = panels_of(monkeypatch, [scales[place] for place in order], tmp_path / "x.png")
    assert panel.get_title(loc="right") == f"{arrow} better"
    assert [line.get_drawstyle() for line in panel.lines if line.get_drawstyle() != "default"] == [drawstyle]


def test_of_more_objectives_each_has_a_panel_and_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = [*SCALES, Scale("accuracy", "error", "error", "nats")]
    panels = panels_of(monkeypatch, scales, tmp_path / "x.png")
    assert [panel.get_xlabel() for panel in panels] == ["time, ms", "error, nats", "generation"]
    assert all(line.get_drawstyle() == "default" for panel in panels for line in panel.lines)


def test_one_objective_is_drawn_over_the_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, volume = panels_of(monkeypatch, SCALES[:1], tmp_path / "x.png")
    assert (panel.get_xlabel(), panel.get_title(loc="right")) == ("candidate", "↑ better")
    assert volume.get_ylim()[1] > max(record.hypervolume for record in GENERATIONS)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(GraphGrowError, match="no stages or candidates to draw"):
        front_figure([], [], [], SCALES, tmp_path / "x.png")
    with pytest.raises(GraphGrowError, match="no suffix of a figure"):
        lineage_figure(lineage(RECORDS), [3], SCALES[0], tmp_path / "x.doc")
