"""Fronts and lineages as tables, graphs and figures, from records alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from graphgrow.errors import GraphGrowError
from graphgrow.records import CandidateRecord, GenerationRecord
from graphgrow.report import Scale, front_figure, front_table, lineage, lineage_figure
from tests.report.stages import stages

SCALES = [Scale("accuracy", "validation accuracy", "accuracy %", "%", 100.0), Scale("latency", "time", "ms", "ms")]


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
    assert lines[2].split() == ["3", "2", "90.0", "4.0", "±", "0.25"]
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


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(GraphGrowError, match="no stages or candidates to draw"):
        front_figure([], [], [], SCALES, tmp_path / "x.png")
    with pytest.raises(GraphGrowError, match="no suffix of a figure"):
        lineage_figure(lineage(RECORDS), [3], SCALES[0], tmp_path / "x.doc")
