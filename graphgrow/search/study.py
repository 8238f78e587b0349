"""A study on disk: what was evaluated, in SQLite, and the candidates' models beside it.

Every evaluation is one transaction. A candidate's folder is put in place by one rename before that, so that one whose
row is missing (the process died between the two) is found again and is not evaluated twice.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from graphgrow.errors import LedgerError, SearchError
from graphgrow.records import CandidateRecord, GenerationRecord, Record
from graphgrow.search.candidates import RECORD, candidate_folder
from graphgrow.search.job import Key
from graphgrow.store.lock import locked

SCHEMA = 1
FILE = "study.sqlite"
R = TypeVar("R", bound=Record)

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS candidates (
    number INTEGER, rung INTEGER, status TEXT NOT NULL, ended REAL NOT NULL, attempts INTEGER NOT NULL,
    record TEXT NOT NULL, PRIMARY KEY (number, rung));
CREATE TABLE IF NOT EXISTS generations (number INTEGER PRIMARY KEY, record TEXT NOT NULL);
"""


class Study:
    """A study that this process works on, alone: a second process is refused, and one that died leaves no lock.

    Args:
        folder: of the study; made where it is missing.
        recipe: as plain JSON types; that of a study that is there already must be the same.

    Raises:
        FolderError: if another process works on it.
        SearchError: if the recipe differs, or the folder cannot be used.
    """

    def __init__(self, folder: str | Path, recipe: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        try:
            (self.folder / "candidates").mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(self.folder))
                self._data = stack.enter_context(closing(_open(self.folder / FILE)))
                with self._data:
                    self._data.executescript(_TABLES)
                self._compare(json.loads(json.dumps(recipe)))
                self._open = stack.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise SearchError(f"the study {self.folder} cannot be used: {error}; choose another folder") from error

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the study."""
        self._open.close()

    def candidates(self) -> dict[Key, CandidateRecord]:
        """All evaluations by number and rung; those whose folder is there and whose row is not are taken up."""
        found = read_candidates(self._data)
        for folder in sorted((self.folder / "candidates").iterdir()):
            if folder.name.startswith("."):  # of an evaluation that did not end
                shutil.rmtree(folder, ignore_errors=True)
                continue
            number, _, rung = folder.name.partition("-")
            if (int(number), int(rung)) not in found:
                text = (folder / RECORD).read_text(encoding="utf-8")
                record = CandidateRecord.from_json(json.loads(text))
                self.add(record)
                found[record.number, record.rung] = record
        return found

    def add(self, record: CandidateRecord, attempts: int = 1) -> None:
        """Record one evaluation, at once and for good.

        Raises:
            SearchError: if it is there already.
        """
        row = (record.number, record.rung, record.status, time.time(), attempts, _text(record))
        try:
            with self._data:
                self._data.execute("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise SearchError(f"candidate {record.number}, rung {record.rung} was evaluated twice") from None

    def forget(self, key: Key) -> None:
        """Take an evaluation away, so that it is made again."""
        shutil.rmtree(candidate_folder(self.folder, *key), ignore_errors=True)
        with self._data:
            self._data.execute("DELETE FROM candidates WHERE number = ? AND rung = ?", key)

    def add_generation(self, record: GenerationRecord) -> None:
        """Record a generation; the same one again changes nothing."""
        with self._data:
            self._data.execute("INSERT OR REPLACE INTO generations VALUES (?, ?)", (record.index, _text(record)))

    def note(self, name: str, value: Any) -> None:
        """Remember something about the study as a whole."""
        with self._data:
            self._data.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def _compare(self, recipe: Any) -> None:
        about = read_about(self._data)
        if not about:
            self.note("schema", SCHEMA)
            self.note("recipe", recipe)
            about = read_about(self._data)
        if about["schema"] != SCHEMA:
            raise SearchError(
                f"the study {self.folder} has schema {about['schema']}, this graphgrow reads {SCHEMA}; go on with the "
                "version that made it"
            )
        differing = sorted(_differences(about["recipe"], recipe))
        if differing:
            raise SearchError(
                f"the study {self.folder} was begun with another recipe: {'; '.join(differing)}; go on with that one, "
                "or choose another folder"
            )


def read_study(folder: str | Path) -> tuple[dict[str, Any], dict[Key, CandidateRecord], list[GenerationRecord]]:
    """What a study holds, also while another process works on it.

    Returns:
        What is known about it (its recipe among it), its evaluations, and its generations.

    Raises:
        SearchError: if there is no study, or it cannot be read.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise SearchError(f"there is no study in {folder}; graphgrow evolve makes one")
    try:
        with closing(_open(file)) as data:
            generations = data.execute("SELECT record FROM generations ORDER BY number")
            records = [_record(GenerationRecord, text) for (text,) in generations]
            return read_about(data), read_candidates(data), records
    except (sqlite3.Error, LedgerError, ValueError) as error:
        raise SearchError(f"the study {folder} is damaged: {error}") from error


def read_about(data: sqlite3.Connection) -> dict[str, Any]:
    """What is known about a study as a whole."""
    return {name: json.loads(value) for name, value in data.execute("SELECT name, value FROM about")}


def read_candidates(data: sqlite3.Connection) -> dict[Key, CandidateRecord]:
    """All evaluations by number and rung, in that order."""
    rows: Iterable[tuple[int, int, str]] = data.execute(
        "SELECT number, rung, record FROM candidates ORDER BY number, rung"
    )
    return {(number, rung): _record(CandidateRecord, text) for number, rung, text in rows}


def _open(file: Path) -> sqlite3.Connection:
    data = sqlite3.connect(file, timeout=30.0)
    data.execute("PRAGMA journal_mode=WAL")  # readers and the one writer do not wait for each other
    data.execute("PRAGMA synchronous=FULL")
    return data


def _text(record: Record) -> str:
    return json.dumps(record.to_json(), allow_nan=False)


def _record(kind: type[R], text: str) -> R:
    return kind.from_json(json.loads(text))


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two recipes differ, and how."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))]
    return [] if old == new else [f"{where} was {old!r:.60}, is {new!r:.60}"]
