"""Events are on disk as soon as they are written; a torn last line is no event."""

from __future__ import annotations

from pathlib import Path

from tools.sweep.journal import Journal, read_events


def test_events_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with path.open("w") as stream:
        journal = Journal(stream)
        journal.begin("a step")
        journal.end("mutation", kind="preserved")
        began, ended = read_events(path)
    assert began == {"event": "begin", "label": "a step"}
    assert ended.pop("seconds") >= 0
    assert ended == {"event": "mutation", "label": "a step", "kind": "preserved"}


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text('{"event": "begin", "label": "x"}\n{"event": "mut')
    assert read_events(path) == [{"event": "begin", "label": "x"}]
    assert read_events(tmp_path / "missing") == []
