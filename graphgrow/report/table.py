"""Growth stages as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphgrow.records import StageRecord

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text


def table(records: Sequence[StageRecord]) -> StageTable:
    """One row for each stage: what was applied, what it costs, held-out accuracy, and the verdict.

    Columns that no record has a value for are left out. Latencies are medians at the smallest batch size.
    """
    return StageTable(tuple(_row(record) for record in records))


@dataclass(frozen=True)
class StageTable:
    """What rich prints; nothing is cut.

    Where the mutations do not fit beside the numbers they follow on lines of their own; where the numbers do not fit,
    the least important columns are left out, and named.

    Attributes:
        rows: of each stage, the cells by column.
    """

    rows: tuple[Mapping[str, str], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The lines, for the width that there is."""
        from rich.padding import Padding
        from rich.text import Text

        titles, dropped = self._fitting(options.max_width)
        widths = {title: self._width(title) for title in titles}
        yield self._line(titles, widths, {title: title for title in titles}, header=True)
        for row in self.rows:
            mutations = row[_MUTATIONS].split("\n") if row[_MUTATIONS] else []
            first, *others = mutations if mutations and _MUTATIONS in titles else [""]
            yield self._line(titles, widths, {**row, _MUTATIONS: first})
            for mutation in others:
                yield self._line(titles, widths, {_MUTATIONS: mutation})
            for mutation in mutations if _MUTATIONS not in titles else ():
                yield Padding(Text(mutation, "dim", overflow="fold"), (0, 0, 0, 2))
        if dropped:
            yield Text(f"(wider terminals also show {', '.join(dropped)})", "dim")

    def _fitting(self, width: int) -> tuple[list[str], list[str]]:
        """The columns for which there is room, and those that are left out for want of it."""
        titles, dropped = [title for title in _COLUMNS if any(row.get(title) for row in self.rows)], []
        if self._total(titles) > width and _MUTATIONS in titles:
            titles.remove(_MUTATIONS)
        for title in _DISPENSABLE:
            if title in titles and self._total(titles) > width:
                titles.remove(title)
                dropped.append(title)
        return titles, dropped

    def _width(self, title: str) -> int:
        return max(len(line) for row in (*self.rows, {title: title}) for line in row.get(title, "").split("\n"))

    def _total(self, titles: Sequence[str]) -> int:
        return sum(self._width(title) + len(_GAP) for title in titles) - len(_GAP)

    def _line(
        self, titles: Sequence[str], widths: Mapping[str, int], cells: Mapping[str, str], header: bool = False
    ) -> Text:
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ignore")
        for title in titles:
            cell = cells.get(title, "")
            place = cell.ljust(widths[title]) if title in _LEFT else cell.rjust(widths[title])
            line.append(_GAP if len(line) else "").append(place, "bold" if header else _style(title, cell))
        return line


_MUTATIONS, _GAP = "mutations", "  "
_COLUMNS = ("stage", _MUTATIONS, "params", "MFLOPs", "before", "after", "latency", "ONNX", "verified")
_LEFT = ("stage", _MUTATIONS)
_DISPENSABLE = ("ONNX", "before", "latency", "MFLOPs", "params")  # the first goes first


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
