"""The command: rows for whatever is named, and nothing done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import coverage
from tools.sweep.options import Limits, Options
from tools.sweep.results import read_rows, write_row
from tools.sweep.row import Row

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "coverage.py"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_second_call_does_what_is_missing(tmp_path: Path) -> None:
    plain = ("graphgrow:nothing", "--out", "out/c.md")
    first = run(tmp_path, *plain)
    assert first.returncode == 0, first.stderr
    assert "1 of 1 models to do" in first.stdout
    data = json.loads((tmp_path / "out" / "c.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in data["rows"]] == ["graphgrow:nothing"]
    assert "not captured: ModelError: there is no graphgrow:nothing" in (tmp_path / "out" / "c.md").read_text("utf-8")
    assert "0 of 1 models to do" in run(tmp_path, *plain, "--keep-stale").stdout
    assert "1 of 1 models to do" in run(tmp_path, *plain, "--keep-stale", "--no-resume").stdout


def test_rows_of_older_sources_are_made_again_with_their_own_options(tmp_path: Path) -> None:
    out = tmp_path / "c.md"
    old = Row("graphgrow:nothing", Options(sites=3).to_json(), {"torch": "1", "source": "older"}, complete=True)
    write_row(old, out)
    again = run(tmp_path, "--again", "--out", "c.md")
    assert again.returncode == 0, again.stderr
    assert "1 of 1 models to do" in again.stdout
    (made,) = read_rows(out).values()
    assert made.options == old.options
    assert made.versions != old.versions
    assert "0 of 1 models to do" in run(tmp_path, "--again", "--out", "c.md").stdout


def test_a_row_that_is_interrupted_replaces_none_that_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "c.md", Options(sites=3)
    old = Row("graphgrow:mlp", options.to_json(), {"torch": "1", "source": "older"}, complete=True)
    write_row(old, out)
    stopped = [Row(name, {}, {}, stopped="interrupted in `capture`") for name in ("graphgrow:mlp", "graphgrow:vgg")]
    for row in stopped:
        monkeypatch.setattr(coverage, "run_model", lambda *given, row=row: row)
        parsed = coverage.parser().parse_args([row.model, "--out", str(out)])
        with pytest.raises(SystemExit, match="interrupted"):
            coverage.sweep([row.model], options, Limits(), parsed)
    assert read_rows(out) == {"graphgrow:mlp": old, "graphgrow:vgg": stopped[1]}


def test_mistakes_on_the_command_line_end_it(tmp_path: Path) -> None:
    nothing = run(tmp_path, "--out", "c.md")
    assert nothing.returncode
    assert "name models, or --families" in nothing.stderr
    size = run(tmp_path, "graphgrow:mlp", "--input-size", "large", "--out", "c.md")
    assert size.returncode
    assert "'large' is neither small nor own" in size.stderr
    unknown = run(tmp_path, "graphgrow:mlp", "--passes", "widen,widn", "--out", "c.md")
    assert unknown.returncode
    assert "there is no pass widn; there are add-branch, " in unknown.stderr
    assert not (tmp_path / "c.md").exists()
