"""One process at a time, the recipe that it was begun with, and records that are there at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from graphgrow.errors import FolderError, SearchError
from graphgrow.search.candidates import blank
from graphgrow.search.job import Job
from graphgrow.search.study import FILE, Study, read_study
from tests.search import landscape

RECIPE = {"population": 4, "task": {"model": "m"}}


def record(number: int, folder: Path) -> None:
    with Study(folder, RECIPE) as study:
        study.add(replace(blank(Job("f", landscape.recipe(), number)), reason=f"reason {number}"))


def test_a_second_process_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys; from graphgrow.search.study import Study; from tests.search.test_study import RECIPE\n"
        "study = Study(sys.argv[1], RECIPE); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(FolderError, match=rf"another process works in .* \(process {other.pid} on "):
            Study(tmp_path, RECIPE)
        assert read_study(tmp_path)[1] == {}  # reading is free
        other.kill()
        other.wait()
    record(3, tmp_path)
    assert [found.reason for found in read_study(tmp_path)[1].values()] == ["reason 3"]


def test_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    Study(tmp_path, RECIPE).close()
    with pytest.raises(SearchError, match=r"population was 4, is 5; task\.model was 'm', is 'n'; go on with that one"):
        Study(tmp_path, {"population": 5, "task": {"model": "n"}})
    with pytest.raises(SearchError, match=r"task\.data was None, is 'd'"):
        Study(tmp_path, {"population": 4, "task": {"model": "m", "data": "d"}})


def test_nothing_is_recorded_twice(tmp_path: Path) -> None:
    record(1, tmp_path)
    with pytest.raises(SearchError, match="candidate 1, rung 0 was evaluated twice"):
        record(1, tmp_path)
    other = blank(Job("f", landscape.recipe(), 1, 1))
    with Study(tmp_path, RECIPE) as study:
        study.add(other)
    assert list(read_study(tmp_path)[1]) == [(1, 0), (1, 1)]


def test_a_study_of_another_schema_or_damaged_is_refused(tmp_path: Path) -> None:
    with Study(tmp_path, RECIPE) as study:
        study.note("schema", 99)
    with pytest.raises(SearchError, match="schema 99, this graphgrow reads 1"):
        Study(tmp_path, RECIPE)
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(SearchError, match="is damaged: file is not a database"):
        read_study(tmp_path)
    with pytest.raises(SearchError, match="cannot be used: file is not a database"):
        Study(tmp_path, RECIPE)


def test_a_record_of_another_form_is_refused(tmp_path: Path) -> None:
    record(1, tmp_path)
    with sqlite3.connect(tmp_path / FILE) as data:
        data.execute("""UPDATE candidates SET record = '{"kind": "CandidateRecord", "schema": 1}'""")
    with pytest.raises(SearchError, match="is damaged: CandidateRecord: unknown keys"):
        read_study(tmp_path)


def test_there_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="there is no study in"):
        read_study(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match=r"cannot be used: .*; choose another folder"):
        Study(tmp_path / "file", RECIPE)
