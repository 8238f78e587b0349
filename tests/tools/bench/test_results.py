"""Rows of several runs in one file, and tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from tools.bench.results import Results, Rows, missing, seconds, table


def test_new_rows_take_the_place_of_old_ones_and_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.json"
    first = Results.read(path).merged({"command": "one"}, [{"model": "a", "x": 1}, {"model": "b", "x": 2}], "model")
    first.write(path)
    second = Results.read(path).merged({"command": "two"}, [{"model": "a", "x": 3}, {"model": "c", "x": 4}], "model")
    second.write(path)
    found = Results.read(path)
    assert [(row["model"], row["x"], found.runs[row["run"]]["command"]) for row in found.rows] == [
        ("a", 3, "two"),
        ("b", 2, "one"),
        ("c", 4, "two"),
    ]
    third = found.merged({"command": "three"}, [{"model": "b", "x": 5}], "model")
    assert [run["command"] for run in third.runs] == ["two", "three"], "a run without rows is gone"
    assert [(row["x"], third.runs[row["run"]]["command"]) for row in third.rows] == [
        (3, "two"),
        (5, "three"),
        (4, "two"),
    ]


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    assert table(["model", "s"], [["a", "1"], ["long name", "10"]]).splitlines() == [
        "| model     |  s |",
        "|-----------|---:|",
        "| a         |  1 |",
        "| long name | 10 |",
    ]


def test_times_have_three_digits_and_a_unit() -> None:
    assert [seconds(value) for value in (12.345, 1.0, 0.98765, 0.0012345, 0.0)] == [
        "12.3 s", "1 s", "988 ms", "1.23 ms", "0 ms"
    ]  # fmt: skip


def test_what_a_file_holds_is_not_measured_again(tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path / "r.json", seeds=[4, 5])
    asked: list[tuple[str, int, int]] = []

    def measured(arm: str, seed: int, known: Rows) -> dict[str, Any]:
        asked.append((arm, seed, len(known)))
        if (arm, seed) == ("b", 5):
            raise KeyboardInterrupt
        return {"key": f"{arm}-{seed}", "value": 1 / 3}

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            missing(options, ("a", "b"), measured, str)
    assert asked == [("a", 4, 0), ("b", 4, 1), ("a", 5, 2), ("b", 5, 3), ("b", 5, 3)]
    assert [(row["key"], row["value"]) for row in Results.read(options.out).rows][::2] == [
        ("a-4", 0.333333),
        ("a-5", 0.333333),
    ]
