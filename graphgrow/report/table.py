"""Growth stages as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphgrow.records import StageRecord

if TYPE_CHECKING:
    from rich.table import Table


def table(records: Sequence[StageRecord]) -> Table:
    """One row for each stage: what was applied, what it costs, held-out accuracy, and the verdict.

    Columns that no record has a value for are left out. Latencies are medians at the smallest batch size.
    """
    from rich.table import Table
    from rich.text import Text

    rows = [_row(record) for record in records]
    titles = [title for title in _COLUMNS if any(row.get(title) for row in rows)]
    result = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        left = title in ("stage", "mutations")
        result.add_column(title, justify="left" if left else "right", no_wrap=title != "mutations")
    for row in rows:
        cells = (row.get(title, "") for title in titles)
        # the column of mutations gives way where there is little room, but each keeps to its line
        whole: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
        result.add_row(*(Text(cell, _style(title, cell), **whole) for title, cell in zip(titles, cells, strict=True)))
    return result


_COLUMNS = ("stage", "mutations", "params", "MFLOPs", "before", "after", "latency", "ONNX", "verified")


def _row(record: StageRecord) -> dict[str, str]:
    """The cells of one stage, by column; what was not measured is missing."""
    row = {
        "stage": f"{record.index} {record.name}",
        "mutations": _some(record.mutations),
        "params": f"{record.parameters:,}",
        "MFLOPs": _megas(record.flops),
        "verified": {True: "yes", False: "NO", None: "undetermined"}[record.preserved] if record.mutations else "",
    }
    if record.accuracy_before is not None:
        row["before"] = f"{100 * record.accuracy_before:.1f} %"
    if record.accuracy_after is not None:
        row["after"] = f"{100 * record.accuracy_after:.1f} %"
    if record.benchmark is not None and record.benchmark.latencies:
        fastest = min(record.benchmark.latencies, key=lambda one: one.batch_size)
        row["latency"] = f"{fastest.median_ms:.3f} ms"
    if record.export is not None:
        row["ONNX"] = f"{record.export.bytes / 1e3:,.0f} kB"
    return row


def _some(mutations: Sequence[str], most: int = 3) -> str:
    """The first few, a line each, and how many more there are."""
    if len(mutations) <= most:
        return "\n".join(mutations)
    return "\n".join([*mutations[: most - 1], f"and {len(mutations) - most + 1} more"])


def _megas(flops: int) -> str:
    """Millions with three significant digits and no exponent."""
    millions = flops / 1e6
    decimals = 3 if millions < 1 else 2 if millions < 10 else 1 if millions < 100 else 0
    return f"{millions:,.{decimals}f}"


def _style(title: str, cell: str) -> str:
    if title == "verified":
        return {"yes": "green", "NO": "bold red"}.get(cell, "yellow")
    return {"mutations": "dim", "after": "bold"}.get(title, "")
