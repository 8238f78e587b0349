"""Rows of several runs in one file, and tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from tools.bench import results
from tools.bench.learning.tasks import DEPENDS as OF_LEARNING
from tools.bench.results import Results, Rows, circumstances, missing, parser, seconds, table
from tools.bench.search import DEPENDS as OF_SEARCH


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


def test_rows_say_what_they_depend_on_and_older_ones_are_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "train/a.py": "x = 1",
        "train/deep/b.toml": "y = 2",
        "train/note.md": "z",
        "one.py": "w",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(results, "ROOT", tmp_path)

    def present() -> dict[str, Any]:
        return circumstances(parser(None, ("train", "one.py")).parse_args([]))

    first = present()
    assert list(first["parts"]) == ["train", "one.py"]
    assert "parts" not in circumstances(parser(None).parse_args([]))
    assert not {"parts", "depends"} & set(first["options"])
    (tmp_path / "train/note.md").write_text("other words")
    assert present() == first
    (tmp_path / "train/deep/b.toml").write_text("y = 3")
    second = present()
    assert second["parts"]["one.py"] == first["parts"]["one.py"]
    assert second["parts"]["train"] != first["parts"]["train"]
    unknown = {name: value for name, value in second.items() if name != "parts"}
    rows = Results([], [])
    for key, about in (("a", first), ("b", second), ("c", unknown)):
        rows = rows.merged(about, [{"key": key}], "key")
    assert rows.of_other_sources(second) == ["a", "c"]
    assert rows.of_other_sources(unknown) == ["a", "b"]


def test_all_parts_that_are_named_are_there() -> None:
    for part in (*OF_LEARNING, *OF_SEARCH):
        assert len(results.part_digest(part)) == 12
        assert (results.ROOT / part).exists()
