"""The rows of a sweep on disk: JSON beside the table, both replaced in one step each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from graphgrow.errors import LedgerError
from graphgrow.store.files import write_atomically
from tools.sweep.options import Options
from tools.sweep.row import Row
from tools.sweep.table import page

FORMAT, SCHEMA = "graphgrow coverage", 2


def read_rows(table: Path) -> dict[str, Row]:
    """The rows that lie beside a table, by model; none where there is no file, or one of an older form.

    Raises:
        LedgerError: if the file is damaged, or newer.
    """
    path = table.with_suffix(".json")
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, list):  # before there were schemas
            print(f"{path} holds {len(data)} rows of an older form, which are not kept")
            return {}
        if (data["format"], data["schema"]) != (FORMAT, SCHEMA):
            raise ValueError(f"it is no {FORMAT} of schema {SCHEMA}")
        rows = [Row.from_json(row) for row in data["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"cannot read {path}: {error}; move it away, or choose another --out") from error
    return {row.model: row for row in rows}


def write_row(row: Row, table: Path) -> None:
    """Put one row among those that lie there now, and write both files.

    Raises:
        LedgerError: if the files cannot be read or written.
    """
    write_rows({**read_rows(table), row.model: row}, table)


def write_rows(rows: dict[str, Row], table: Path) -> None:
    """Write the rows, sorted by model, and the page that is made of them.

    Raises:
        LedgerError: if a file cannot be written.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    ordered = [rows[name] for name in sorted(rows)]
    data = {"format": FORMAT, "schema": SCHEMA, "rows": [asdict(row) for row in ordered]}
    write_atomically(table.with_suffix(".json"), (json.dumps(data, indent=1) + "\n").encode())
    write_atomically(table, page(table.stem.capitalize(), ordered).encode())


def to_do(models: list[str], rows: dict[str, Row], options: Options, versions: dict[str, dict[str, str]]) -> list[str]:
    """The models that lack a complete row with these options and versions; those stopped before come last.

    Args:
        models: wanted, in order.
        rows: there already.
        options: of this sweep.
        versions: of today, by model; a model that is missing here keeps its row whatever that was made with.
    """
    missing = [name for name in models if not _holds(rows.get(name), options, versions.get(name))]
    return sorted(missing, key=lambda name: name in rows and bool(rows[name].stopped))


def to_make_again(rows: dict[str, Row], versions: dict[str, dict[str, str]]) -> list[Row]:
    """The rows that are not complete, or were made with other versions than today's; the cheapest come first."""
    old = [row for row in rows.values() if not row.complete or row.versions != versions[row.model]]
    return sorted(old, key=lambda row: row.seconds)


def _holds(row: Row | None, options: Options, versions: dict[str, str] | None) -> bool:
    same = row is not None and row.complete and row.options == options.to_json()
    return same and row is not None and versions in (None, row.versions)
