"""The course of choices between operators as a figure, and what came of them as a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphgrow.records import ChoiceRecord, RoundRecord
from graphgrow.report.figure import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

# Okabe and Ito's palette and two greys; beyond it the colours begin again, dashed.
COLOURS = ("#7F7F7F", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#BDB76B")
COLUMNS = 4


def choice_table(rounds: Sequence[RoundRecord]) -> Table:
    """One row for each choice that was made: the operators, what was kept, and how sure the choice was."""
    from rich.table import Table
    from rich.text import Text

    result = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title, side in (("round", "right"), ("site", "left"), ("kept", "left"), ("share", "right"), ("next", "left")):
        result.add_column(title, justify=side)  # type: ignore[arg-type]  # one of rich's words
    for record in rounds:
        for choice in record.choices:
            last = choice.shares[-1] if choice.shares else (0.0,) * len(choice.names)
            order = sorted(range(len(last)), key=lambda place, last=last: -last[place])  # type: ignore[misc]
            kept = choice.names.index(choice.kept)
            second = next(place for place in order if place != kept)
            note = "" if choice.kept == choice.strongest else f" (guard: {choice.strongest} led)"
            result.add_row(
                str(record.index),
                Text(choice.site),
                Text(choice.kept + note, "" if choice.kept == choice.names[0] else "bold"),
                f"{last[kept]:.2f}",
                Text(f"{choice.names[second]} {last[second]:.2f}", "dim"),
            )
    return result


def choice_figure(rounds: Sequence[RoundRecord], path: str | os.PathLike[str]) -> Path:
    """Draw the course of every choice: the share of each operator over the steps, one panel for each site.

    Args:
        rounds: in order.
        path: of the file; its suffix chooses the format.

    Raises:
        GraphGrowError: as `figure` does.
    """
    panels = [(record.index, choice) for record in rounds for choice in record.choices if choice.shares]
    names = list(dict.fromkeys(name for _, choice in panels for name in choice.names))
    columns = min(COLUMNS, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    with drawing(path, bool(panels), columns, rows, size=(9.6, 1.0 + 1.75 * rows)) as axes:
        for panel, (index, choice) in zip(axes, panels, strict=False):
            _course(panel, index, choice, names, several=len(rounds) > 1)
        for panel in axes[: len(panels) : columns]:
            panel.set_ylabel("share", fontsize=8)
        for panel in axes[max(0, len(panels) - columns) : len(panels)]:  # the lowest of each column
            panel.set_xlabel("step of the round", fontsize=8)
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        handles = [_line(axes[-1], name, names, [], []) for name in names]
        axes[0].figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 8), fontsize=7)
    return Path(path)


def _course(panel: Axes, index: int, choice: ChoiceRecord, names: Sequence[str], several: bool) -> None:
    site = choice.site.replace("_mix_operators", "")
    title = f"round {index}: {site}" if several else site
    panel.set_title(title, fontsize=min(8.0, 240 / len(title)))
    for place, name in enumerate(choice.names):
        _line(panel, name, names, choice.steps, [shares[place] for shares in choice.shares])
    panel.annotate(
        f"kept: {choice.kept}",
        (0.04, 0.94),  # at the start all shares are low, so that there is room
        xycoords="axes fraction",
        va="top",
        fontsize=7,
        weight="bold",
    )
    panel.set_ylim(0, 1.03)
    panel.tick_params(labelsize=7)


def _line(panel: Axes, name: str, names: Sequence[str], steps: Sequence[int], shares: Sequence[float]) -> Any:
    number = names.index(name)
    style = "-" if number < len(COLOURS) else "--"
    (line,) = panel.plot(steps, shares, style, color=COLOURS[number % len(COLOURS)], linewidth=1.3, label=name)
    return line
