"""Two real processes on one folder: the second is refused, also where it trains or searches, and a dead one lets go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphgrow.errors import FolderError
from graphgrow.search.choosing import choose
from graphgrow.store.lock import FILE, locked
from graphgrow.train import loop
from tests.search.test_choosing import KILLED
from tests.train.test_loop import RECIPE

HOLD = """
import sys
from graphgrow.store.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is killed, or its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with other_process(folder) as first:
        reason = rf"works in .*run \(process {first.pid} on .*\); wait for it, end it"
        with pytest.raises(FolderError, match=reason), locked(folder):
            raise AssertionError("both hold it")
        first.kill()
        first.wait()
        with locked(folder), pytest.raises(FolderError, match="another process works in"), locked(folder):
            raise AssertionError("this process holds it twice")
    with locked(folder):
        assert (folder / FILE).exists()


def test_neither_training_nor_search_touches_a_folder_that_another_process_works_in(tmp_path: Path) -> None:
    with other_process(tmp_path):
        with pytest.raises(FolderError, match="another process works in"):
            loop.train(RECIPE, tmp_path)
        with pytest.raises(FolderError, match="another process works in"):
            choose(KILLED, folder=tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(FolderError, match=r"cannot lock .*file/\.lock: .*; use another folder"),
        locked(tmp_path / "file"),
    ):
        raise AssertionError("there is no such folder")
