"""Growth stages as a figure: accuracy, parameters, FLOPs and latency, one panel each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphgrow.errors import GraphGrowError
from graphgrow.records import LatencyRecord, StageRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#7F7F7F"
_SMALL = 7.0  # size of the names of points
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "graphgrow",
}


def figure(records: Sequence[StageRecord], path: str | os.PathLike[str]) -> Path:
    """Draw the stages and write the figure; the suffix of `path` chooses the format (.png, .svg, .pdf).

    Args:
        records: of the stages, in order; what was not measured leaves its panel empty.
        path: of the file; missing folders are made.

    Raises:
        GraphGrowError: if there are no records, the suffix names no format, or the file cannot be written.
    """
    with drawing(path, bool(records), columns=2, rows=2, size=(9.6, 5.4), sharex=True) as panels:
        for panel, draw in zip(panels, _PANELS, strict=True):
            draw(panel, records)
        for panel in panels[2:]:
            labels = [_label(record) for record in records]
            panel.set_xticks(range(len(records)), labels, fontsize=_fitting(labels))
            panel.set_xlabel("growth stage")
    return Path(path)


@contextlib.contextmanager
def drawing(
    path: str | os.PathLike[str],
    anything: bool,
    columns: int,
    rows: int = 1,
    size: tuple[float, float] = (9.6, 5.4),
    sharex: bool = False,
) -> Iterator[list[Axes]]:
    """Panels to draw in; at the end the figure is written. It has the style that all figures here have.

    Args:
        path: of the file; its suffix chooses the format, missing folders are made.
        anything: whether there is something to draw.
        columns: of panels.
        rows: of panels.
        size: in inches.
        sharex: whether the panels of a column have one horizontal axis.

    Raises:
        GraphGrowError: if there is nothing to draw, the suffix names no format, or the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    target = Path(path)
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if not anything:
        raise GraphGrowError("there are no stages or candidates to draw; run one first")
    if target.suffix[1:].lower() not in known:
        raise GraphGrowError(f"{target} has no suffix of a figure; use one of {', '.join(known)}")
    with rc_context(_STYLE):
        sheet = Figure(figsize=size, dpi=150, layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
        yield list(sheet.subplots(rows, columns, sharex=sharex, squeeze=False).flat)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            sheet.savefig(target, metadata={"Date": None} if target.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise GraphGrowError(f"cannot write {target}: {error.strerror or error}; choose another place") from error


def whole_numbers(panel: Axes) -> None:
    """Mark the horizontal axis at whole numbers alone: there is no generation 1.5."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain_numbers(panel: Axes) -> None:
    """Let a logarithmic vertical axis read 2.3 and 0.05, where matplotlib writes powers of ten."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """What matplotlib would label, in plain digits."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:.3g}" if super().__call__(x, pos) else ""

    panel.yaxis.set_major_formatter(Plain())
    panel.yaxis.set_minor_formatter(Plain(minor_thresholds=(1.0, 0.4)))


def below(panel: Axes) -> None:
    """The legend of a panel in one line below the whole figure, where it covers nothing."""
    handles, labels = panel.get_legend_handles_labels()
    panel.figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def name_points(panel: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write the names of points beside them, each where it covers no other name, no point and no edge of the panel.

    A name for which there is no such place is left out. Call it when all else has been drawn.

    Args:
        panel: to write in.
        points: by name, in data coordinates.
    """
    from matplotlib.patheffects import withStroke

    sheet = panel.get_figure(root=True)
    assert sheet is not None
    panel.autoscale_view()
    sheet.draw_without_rendering()  # puts the panel in its place
    scale = 72 / sheet.dpi
    inner = [side * scale for side in panel.bbox.extents]
    each = {name: panel.transData.transform(place) * scale for name, place in points.items()}
    taken = [(x - 2.5, y - 2.5, x + 2.5, y + 2.5) for x, y in each.values()]
    for name, (x, y) in each.items():
        wide, high = 0.7 * _SMALL * len(name), 1.05 * _SMALL
        for right, up in ((-4, 3), (4, -3), (4, 3), (-4, -3)):
            left, low = x + right - (wide if right < 0 else 0), y + up - (high if up < 0 else 0)
            box = (left, low, left + wide, low + high)
            inside = inner[0] < box[0] and inner[1] < box[1] and box[2] < inner[2] and box[3] < inner[3]
            if inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                taken.append(box)
                style: dict[str, Any] = {"ha": "right" if right < 0 else "left", "va": "top" if up < 0 else "bottom"}
                where: dict[str, Any] = {"xytext": (right, up), "textcoords": "offset points"}
                halo = [withStroke(linewidth=2.0, foreground="white")]  # lines may pass below
                panel.annotate(name, points[name], fontsize=_SMALL, path_effects=halo, zorder=5, **where, **style)
                break


def _label(record: StageRecord) -> str:
    return f"{record.index}\n" + record.name.replace("-", "\n")


def _fitting(labels: Sequence[str]) -> float:
    """The size at which the labels of all stages stand beside each other, at most that of the other text."""
    longest = max(len(line) for label in labels for line in label.splitlines())
    return max(5.0, min(9.0, 500 / (longest * len(labels))))


def _accuracy(panel: Axes, records: Sequence[StageRecord]) -> None:
    panel.set_title("Held-out accuracy")
    panel.set_ylabel("%")
    after = [(i, 100 * r.accuracy_after) for i, r in enumerate(records) if r.accuracy_after is not None]
    # the base has no growth in front of its training: what an untrained net scores would only stretch the axis
    before = [
        (i, 100 * r.accuracy_before) for i, r in enumerate(records) if r.accuracy_before is not None and r.mutations
    ]
    if not after and not before:
        _nothing(panel)
        return
    _line(panel, after, BLUE, "o", "after training")
    panel.plot(*_columns(before), "o", color=ORANGE, mfc="white", mew=1.5, label="after growth, before training")
    panel.legend(loc="best")


def _parameters(panel: Axes, records: Sequence[StageRecord]) -> None:
    panel.set_title("Parameters")
    panel.set_ylabel("thousands")
    _from_zero(panel, [(i, record.parameters / 1e3) for i, record in enumerate(records)])


def _flops(panel: Axes, records: Sequence[StageRecord]) -> None:
    panel.set_title("FLOPs of one sample")
    panel.set_ylabel("millions")
    _from_zero(panel, [(i, record.flops / 1e6) for i, record in enumerate(records)])


def _latency(panel: Axes, records: Sequence[StageRecord]) -> None:
    panel.set_title("Latency with onnxruntime (median ± half the IQR)")
    panel.set_ylabel("milliseconds")
    timed: dict[int, list[tuple[int, LatencyRecord]]] = {}
    for place, record in enumerate(records):
        for one in record.benchmark.latencies if record.benchmark else ():
            timed.setdefault(one.batch_size, []).append((place, one))
    for (size, points), (color, marker) in zip(sorted(timed.items()), _SERIES, strict=False):
        places = [place for place, _ in points]
        medians = [one.median_ms for _, one in points]
        spread = [one.iqr_ms / 2 for _, one in points]
        panel.errorbar(places, medians, spread, color=color, marker=marker, capsize=2.5, label=f"batch size {size}")
    if timed:
        panel.set_ylim(bottom=0)
        panel.legend(loc="upper left")
    else:
        _nothing(panel)


_PANELS: tuple[Callable[[Axes, Sequence[StageRecord]], None], ...] = (_accuracy, _parameters, _flops, _latency)
_SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREY, "^"))


def _from_zero(panel: Axes, points: Sequence[tuple[int, float]]) -> None:
    _line(panel, points, BLUE, "o", None)
    panel.set_ylim(bottom=0)


def _line(panel: Axes, points: Sequence[tuple[int, float]], color: str, marker: str, label: str | None) -> None:
    panel.plot(*_columns(points), color=color, marker=marker, label=label)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [place for place, _ in points], [value for _, value in points]


def _nothing(panel: Axes) -> None:
    panel.text(0.5, 0.5, "not measured", ha="center", va="center", transform=panel.transAxes, color=GREY)
