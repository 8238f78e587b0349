"""A training with its growth as a figure: accuracy, loss and size over the epochs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from graphgrow.records import TrainingRecord
from graphgrow.report.figure import BLUE, GREY, ORANGE, drawing, plain_numbers, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def timeline(record: TrainingRecord, path: str | os.PathLike[str]) -> Path:
    """Draw a training and write the figure; the suffix of `path` chooses the format (.png, .svg, .pdf).

    Args:
        record: of the training.
        path: of the file; missing folders are made.

    Raises:
        GraphGrowError: if there are no epochs, the suffix names no format, or the file cannot be written.
    """
    with drawing(path, bool(record.epochs), columns=1, rows=3, size=(9.0, 6.6), sharex=True) as panels:
        accuracy, loss, size = panels
        epochs = [one.epoch for one in record.epochs]
        accuracy.set_title(f"{record.recipe}: accuracy (dashed lines: the network grows)")
        accuracy.set_ylabel("%")
        accuracy.plot(epochs, [100 * one.validation_accuracy for one in record.epochs], color=BLUE, label="validation")
        ends, tests = _stage_ends(record)
        accuracy.plot(ends, tests, "D", color=ORANGE, mfc="white", mew=1.5, label="test, at each stage's end")
        accuracy.legend(loc="lower right")
        loss.set_title("Loss")
        loss.plot(epochs, [one.training_loss for one in record.epochs], color=GREY, label="training")
        loss.plot(epochs, [one.validation_loss for one in record.epochs], color=BLUE, label="validation")
        loss.set_yscale("log")
        plain_numbers(loss)
        loss.legend(loc="upper right")
        size.set_title("Parameters")
        size.set_ylabel("thousands")
        size.step(epochs, [one.parameters / 1e3 for one in record.epochs], where="mid", color=BLUE)
        size.set_ylim(bottom=0)
        size.set_xlabel("epoch")
        whole_numbers(size)
        for panel in panels:
            _mark_growth(panel, record)
    return Path(path)


def _stage_ends(record: TrainingRecord) -> tuple[list[int], list[float]]:
    """The last epoch of each stage, and the accuracy on the test there."""
    last = {one.stage: one.epoch for one in record.epochs}
    tested = [(last[s.index], s.accuracy_after) for s in record.stages if s.index in last]
    known = [(epoch, 100 * accuracy) for epoch, accuracy in tested if accuracy is not None]
    return [epoch for epoch, _ in known], [accuracy for _, accuracy in known]


def _mark_growth(panel: Axes, record: TrainingRecord) -> None:
    for before, after in zip(record.epochs, record.epochs[1:], strict=False):
        if after.stage != before.stage:
            panel.axvline((before.epoch + after.epoch) / 2, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
