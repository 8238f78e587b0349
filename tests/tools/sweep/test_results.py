"""Rows on disk: kept, replaced one by one, skipped where they still hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphgrow.errors import LedgerError
from tools.sweep.options import Options
from tools.sweep.results import read_rows, to_do, to_make_again, write_row
from tools.sweep.row import Row

OPTIONS, TODAY = Options(sites=2), {"torch": "2", "source": "abc"}


def row(model: str, complete: bool = True, stopped: str = "", versions: dict[str, str] = TODAY) -> Row:
    return Row(model, OPTIONS.to_json(), versions, complete, stopped)


def test_a_row_replaces_its_predecessor_and_leaves_the_others(tmp_path: Path) -> None:
    out = tmp_path / "new" / "c.md"
    write_row(row("graphgrow:mlp", complete=False), out)
    write_row(row("graphgrow:vgg"), out)
    write_row(row("graphgrow:mlp"), out)
    rows = read_rows(out)
    assert {name: made.complete for name, made in rows.items()} == {"graphgrow:mlp": True, "graphgrow:vgg": True}
    page = out.read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in rows)


def test_rows_that_hold_are_skipped() -> None:
    rows = {"a": row("a"), "b": row("b")}
    today = dict.fromkeys("abc", TODAY)
    assert to_do(["a", "b", "c"], rows, OPTIONS, today) == ["c"]
    assert to_do(["a"], rows, Options(sites=3), today) == ["a"]
    assert to_do(["a", "b"], rows, OPTIONS, {**today, "b": {"torch": "2", "source": "other"}}) == ["b"]
    assert to_do(["a", "b"], rows, OPTIONS, {}) == []  # --keep-stale


def test_stopped_models_are_made_again_and_come_last() -> None:
    rows = {"a": row("a", complete=False, stopped="stopped at the time limit"), "b": row("b")}
    assert to_do(["a", "b", "c"], rows, OPTIONS, dict.fromkeys("abc", TODAY)) == ["c", "a"]


def test_rows_of_older_sources_are_made_again_the_cheapest_first() -> None:
    old = {"torch": "2", "source": "older"}
    rows = {"a": row("a", versions=old), "b": row("b"), "c": row("c", complete=False), "d": row("d", versions=old)}
    rows["a"].seconds, rows["c"].seconds, rows["d"].seconds = 3.0, 2.0, 1.0
    assert [made.model for made in to_make_again(rows, dict.fromkeys("abcd", TODAY))] == ["d", "c", "a"]


def test_no_file_and_the_older_form_hold_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "c.md") == {}
    (tmp_path / "c.json").write_text('[{"model": "a", "way": "fx"}]')
    assert read_rows(tmp_path / "c.md") == {}


@pytest.mark.parametrize(
    "text", ["{", "3", '{"rows": []}', '{"format": "graphgrow coverage", "schema": 99, "rows": []}']
)
def test_a_file_that_cannot_be_read_is_not_written_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(LedgerError, match=r"cannot read .*c\.json: .*; move it away"):
        write_row(row("a"), tmp_path / "c.md")
    assert (tmp_path / "c.json").read_text() == text


def test_a_row_of_other_fields_is_refused(tmp_path: Path) -> None:
    write_row(row("a"), tmp_path / "c.md")
    data = json.loads((tmp_path / "c.json").read_text())
    data["rows"][0]["colour"] = "blue"
    (tmp_path / "c.json").write_text(json.dumps(data))
    with pytest.raises(LedgerError, match="colour"):
        read_rows(tmp_path / "c.md")
