"""A Pareto front as a table for the terminal, and an evolution as a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphgrow.records import CandidateRecord, GenerationRecord, StageRecord
from graphgrow.report.figure import BLUE, GREY, ORANGE, drawing, name_points, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

PALE = "#BFD9EA"


@dataclass(frozen=True)
class Scale:
    """How an objective is shown.

    Attributes:
        name: in the records.
        title: for people.
        short: title and unit for the head of a column.
        unit: of the shown number; may be empty.
        factor: from the recorded value to the shown one.
    """

    name: str
    title: str
    short: str
    unit: str
    factor: float = 1.0

    def text(self, record: CandidateRecord) -> str:
        """The value of a candidate, without its unit, with its spread where it has one."""
        value, spread = (self.factor * values.get(self.name, 0.0) for values in (record.objectives, record.spread))
        return _digits(value) + (f" ± {_digits(spread / 2)}" if spread else "")

    @property
    def label(self) -> str:
        """The title with the unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) < 1 else f"{value:,.1f}"


def front_table(
    records: Sequence[CandidateRecord], scales: Sequence[Scale], stages: Mapping[int, StageRecord] | None = None
) -> Table:
    """One row for each candidate of a front.

    Args:
        records: of the front, in the order of the rows.
        scales: of the objectives, in the order of the columns.
        stages: by number of the candidate, what its export and its test gave.
    """
    from rich.table import Table

    result = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    rows = []
    for record in records:
        cells = {"candidate": str(record.number), "generation": str(record.generation)}
        cells |= {scale.short: scale.text(record) for scale in scales}
        rows.append(cells | (_measured(record, stages.get(record.number)) if stages else {}))
    for title in dict.fromkeys(title for cells in rows for title in cells):
        result.add_column(title.replace(" ", "\n"), justify="right", no_wrap=True)  # units below, to fit 80 columns
    for cells in rows:
        result.add_row(*(cells.get(title, "") for title in rows[0]))
    return result


def _measured(record: CandidateRecord, stage: StageRecord | None) -> dict[str, str]:
    """What is known of a candidate in the end, by the head of its column; empty where it was not measured."""
    timed = None if stage is None or stage.benchmark is None else stage.benchmark.latencies[0].median_ms
    right = None if stage is None else stage.accuracy_after
    return {
        "parameters": f"{record.parameters:,}",
        "test %": "" if right is None else f"{100 * right:.1f}",
        "latency ms": "" if timed is None else f"{timed:.3f}",
        "ONNX kB": f"{stage.export.bytes / 1e3:,.1f}" if stage and stage.export else "",
    }


def front_figure(
    candidates: Sequence[CandidateRecord],
    front: Sequence[CandidateRecord],
    generations: Sequence[GenerationRecord],
    scales: Sequence[Scale],
    path: str | os.PathLike[str],
) -> Path:
    """Draw an evolution: all candidates with the front, and the hypervolume by generation.

    Args:
        candidates: all that succeeded.
        front: those that no other dominates.
        generations: complete ones, in order.
        scales: of the objectives; the first is drawn upwards, the second to the right.
        path: of the file; its suffix chooses the format.

    Raises:
        GraphGrowError: as `figure` does.
    """
    with drawing(path, bool(candidates and generations), columns=2, size=(9.6, 4.2)) as panels:
        _scatter(panels[0], candidates, front, scales)
        _volume(panels[1], generations)
    return Path(path)


def _scatter(
    panel: Axes, candidates: Sequence[CandidateRecord], front: Sequence[CandidateRecord], scales: Sequence[Scale]
) -> None:
    up = scales[0]
    right = scales[1] if len(scales) > 1 else Scale("", "candidate", "candidate", "")

    def place(record: CandidateRecord) -> tuple[float, float]:
        x = right.factor * record.objectives[right.name] if right.name else float(record.number)
        return x, up.factor * record.objectives[up.name]

    shown = {record.number for record in front}
    rest = [place(record) for record in candidates if record.number not in shown]
    line = sorted(place(record) for record in front)
    panel.set_title("Candidates and Pareto front")
    panel.set_xlabel(right.label)
    panel.set_ylabel(up.label)
    panel.grid(visible=True, axis="both")
    panel.plot([x for x, _ in rest], [y for _, y in rest], "o", color=PALE, markersize=4, label="dominated")
    panel.step([x for x, _ in line], [y for _, y in line], where="post", color=BLUE, linewidth=1.2)
    panel.plot([x for x, _ in line], [y for _, y in line], "o", color=BLUE, label="front")
    base = [record for record in candidates if not record.parents]
    panel.plot(*zip(*map(place, base), strict=True), "D", color=ORANGE, markersize=6, label="base")
    panel.legend(loc="lower right")
    panel.margins(0.06, 0.1)
    name_points(panel, {str(record.number): place(record) for record in front})


def _volume(panel: Axes, generations: Sequence[GenerationRecord]) -> None:
    panel.set_title("Hypervolume")
    panel.set_xlabel("generation")
    panel.set_ylabel("share of the box between best and worst")
    places = [record.index for record in generations]
    panel.plot(places, [record.hypervolume for record in generations], "o-", color=BLUE)
    panel.set_ylim(bottom=0)
    whole_numbers(panel)
    failures = generations[-1].failures
    note = f"{generations[-1].evaluations} evaluations" + (f", {failures} failed" if failures else "")
    panel.text(0.97, 0.05, note, transform=panel.transAxes, ha="right", color=GREY, fontsize=8)
