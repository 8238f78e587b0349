"""What works, in numbers: the rows of each source of models added up."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tools.sweep.row import Row

HEAD = (
    "models of", "captured", "in eval and train mode", "parameters in growable groups: median", "worst",
    "mutations preserved", "wrong", "exports on a par",
)  # fmt: skip


def by_source(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line of cells for each source (`timm`, `torchvision`, ...), under `HEAD`."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.model.partition(":")[0], []).append(row)
    return [_line(source, own) for source, own in found.items()]


def _line(source: str, rows: Sequence[Row]) -> tuple[str, ...]:
    captured = [row for row in rows if row.nodes]
    ways = [f"{sum(row.way == way for row in captured)} by {way}" for way in dict.fromkeys(r.way for r in captured)]
    both = sum(row.modes == "eval and train" for row in captured)
    exports = [count for row in rows for count in row.onnx.values()]
    worst = min(captured, key=lambda row: row.growable, default=None)
    return (
        source,
        f"{len(captured)} of {len(rows)}" + (f" ({', '.join(ways)})" if ways else ""),
        str(both),
        f"{median(row.growable for row in captured):.1%}" if captured else "",
        f"{worst.growable:.1%} (`{worst.model.partition(':')[2]}`)" if worst else "",
        f"{sum(row.count('preserved') for row in rows):,} of {sum(row.count() for row in rows):,}",
        str(sum(row.count("wrong") for row in rows)),
        f"{sum(row.onnx.get('parity', 0) for row in rows):,} of {sum(exports):,}" if exports else "",
    )
