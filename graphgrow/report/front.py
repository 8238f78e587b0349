"""A Pareto front as a table for the terminal, and an evolution as a figure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphgrow.records import CandidateRecord, GenerationRecord, StageRecord
from graphgrow.report.figure import BLUE, GREY, ORANGE, below, drawing, name_points, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console, ConsoleOptions, RenderableType

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
        decimals: of the shown number.
        larger_is_better: whether a candidate is to have more of it, not less.
    """

    name: str
    title: str
    short: str
    unit: str
    factor: float = 1.0
    decimals: int = 1
    larger_is_better: bool = False

    def text(self, record: CandidateRecord) -> str:
        """The value of a candidate, without its unit, with half its spread where it has one."""
        value, spread = (self.factor * values.get(self.name, 0.0) for values in (record.objectives, record.spread))
        return f"{value:,.{self.decimals}f}" + (f" ± {spread / 2:,.{self.decimals}f}" if spread else "")

    def place(self, record: CandidateRecord) -> float:
        """Where a candidate lies on an axis."""
        return self.factor * record.objectives.get(self.name, float("nan"))

    @property
    def label(self) -> str:
        """The title with the unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def better(self) -> str:
        """Which direction is the good one, in words."""
        return "more is better" if self.larger_is_better else "less is better"


def front_table(
    records: Sequence[CandidateRecord], scales: Sequence[Scale], stages: Mapping[int, StageRecord] | None = None
) -> FrontTable:
    """One row for each candidate of a front.

    Args:
        records: of the front, in the order of the rows.
        scales: of the objectives, in the order of the columns.
        stages: by number of the candidate, what its export and its test gave.
    """
    rows = []
    for record in records:
        cells = {"candidate": str(record.number), "generation": str(record.generation)}
        cells |= {scale.short: scale.text(record) for scale in scales}
        rows.append((_measured(record, stages.get(record.number)) if stages else {}) | cells)
    wanted = ["candidate", "generation", *(scale.short for scale in scales), *_MEASURED]
    titles = dict.fromkeys(title for title in wanted if any(title in cells for cells in rows))
    goals = [scale.short for scale in scales]
    dispensable = (*(title for title in _BESIDE if title not in goals), *goals[:0:-1])
    return FrontTable(tuple(titles), tuple(rows), dispensable)


@dataclass(frozen=True)
class FrontTable:
    """What rich prints; nothing is cut: columns for which there is no room are left out, and named.

    Attributes:
        titles: of the columns, in order.
        rows: of each candidate, the cells by title.
        dispensable: titles of what may be left out; the first goes first.
    """

    titles: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    dispensable: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The lines, for the width that there is."""
        from rich.table import Table
        from rich.text import Text

        shown, dropped = list(self.titles), []
        for title in self.dispensable:
            if self._width(shown) > options.max_width and title in shown:
                shown.remove(title)
                dropped.append(title)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
        for title in shown:
            table.add_column(_head(title), justify="right", no_wrap=True)
        for cells in self.rows:
            table.add_row(*(cells.get(title, "") for title in shown))
        yield table
        if dropped:
            named = ", ".join(title for title in self.titles if title in dropped)
            yield Text(f"(wider terminals also show {named})", "dim")

    def _width(self, titles: Sequence[str]) -> int:
        lines = [[*_head(title).split("\n"), *(cells.get(title, "") for cells in self.rows)] for title in titles]
        return sum(max(map(len, cells)) + _GAP for cells in lines) - _GAP


_GAP = 2  # between columns
_MEASURED = ("parameters", "test %", "latency ms", "ONNX kB")
_BESIDE = (
    "generation",
    "ONNX kB",
    "latency ms",
    "parameters",
    "test %",
)  # beside the objectives, the least wanted first


def _head(title: str) -> str:
    """Units below, so that the columns are narrow."""
    return title.replace(" ", "\n")


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
        scales: of the objectives; the first is drawn upwards, each other one to the right in a panel of its own. The
            front is that of all objectives together: with more than two, what looks dominated in one panel is not in
            another.
        path: of the file; its suffix chooses the format.

    Raises:
        GraphGrowError: as `figure` does.
    """
    pairs: list[tuple[Scale, Scale | None]] = [(scales[0], right) for right in scales[1:]] or [(scales[0], None)]
    columns = 2 if len(pairs) == 1 else 3
    rows = -(-(len(pairs) + 1) // columns)
    size = (9.6, 4.5) if rows == 1 and columns == 2 else (9.6, 0.6 + 3.2 * rows)
    with drawing(path, bool(candidates and generations), columns, rows, size) as panels:
        for number, (up, right) in enumerate(pairs):
            panel = panels[number]
            _scatter(panel, candidates, front, up, right, whole=len(pairs) == 1)
            title = "Candidates and Pareto front" if len(pairs) == 1 else "Pareto front"
            panel.set_title(title if number == 0 else "")
            if number % columns == 0:
                panel.set_ylabel(up.label)
        below(panels[0])
        _volume(panels[len(pairs)], generations)
        for panel in panels[len(pairs) + 1 :]:
            panel.set_axis_off()
    return Path(path)


def _scatter(
    panel: Axes,
    candidates: Sequence[CandidateRecord],
    front: Sequence[CandidateRecord],
    up: Scale,
    right: Scale | None,
    whole: bool,
) -> None:
    """All candidates by two objectives, or by one and their number.

    `whole` says that there are no other objectives: then a line divides what the front attains from what it does not.
    """

    def place(record: CandidateRecord) -> tuple[float, float]:
        return right.place(record) if right else float(record.number), up.place(record)

    shown = {record.number for record in front}
    rest = [place(record) for record in candidates if record.number not in shown]
    line = sorted(place(record) for record in front)
    panel.set_xlabel(right.label if right else "candidate")
    panel.grid(visible=True, axis="both")
    panel.plot([x for x, _ in rest], [y for _, y in rest], "o", color=PALE, markersize=4, label="dominated")
    if whole and right:
        style = "steps-pre" if right.larger_is_better else "steps-post"
        panel.plot([x for x, _ in line], [y for _, y in line], drawstyle=style, color=BLUE, linewidth=1.2)
    panel.plot([x for x, _ in line], [y for _, y in line], "o", color=BLUE, label="front")
    base = [record for record in candidates if not record.parents]
    panel.plot(*zip(*map(place, base), strict=True), "D", color=ORANGE, markersize=6, label="base")
    panel.margins(0.06, 0.1)
    panel.set_title(_towards_better(up, right), loc="right", color=GREY, fontsize=8, fontweight="normal")
    name_points(panel, {str(record.number): place(record) for record in front})


def _towards_better(up: Scale, right: Scale | None) -> str:
    """Where the best candidates would be, as an arrow."""
    if right is None:
        return "↑ better" if up.larger_is_better else "↓ better"
    arrows = {(True, True): "↗", (True, False): "↖", (False, True): "↘", (False, False): "↙"}
    return f"{arrows[up.larger_is_better, right.larger_is_better]} better"


def _volume(panel: Axes, generations: Sequence[GenerationRecord]) -> None:
    panel.set_title("Hypervolume")
    panel.set_xlabel("generation")
    panel.set_ylabel("share of the box, best to worst")
    places = [record.index for record in generations]
    volumes = [record.hypervolume for record in generations]
    panel.plot(places, volumes, "o-", color=BLUE)
    panel.set_ylim(0, 1.08 * max(volumes) or 1.0)
    whole_numbers(panel)
    if not max(volumes):
        panel.text(
            0.5,
            0.5,
            "no candidate is within the `worst`\nof every objective",
            transform=panel.transAxes,
            ha="center",
            color=GREY,
        )
    failures = generations[-1].failures
    note = f"{generations[-1].evaluations} evaluations" + (f", {failures} failed" if failures else "")
    panel.text(0.97, 0.05, note, transform=panel.transAxes, ha="right", color=GREY, fontsize=8)
