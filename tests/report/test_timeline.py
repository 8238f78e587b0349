"""The timeline's file, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib import rcParams

from graphgrow.errors import GraphGrowError
from graphgrow.records import EpochRecord, TrainingRecord
from graphgrow.report import timeline

EPOCHS = tuple(
    EpochRecord(n, n // 3, 1 / n, 1.1 / n, n / 10, 0.1, 100 * (1 + n // 3), 10, 100 * n) for n in range(1, 8)
)
RECORD = TrainingRecord("a_recipe", "data", 0, EPOCHS, (), (), 0.9, 700, 1.0)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_figure_is_written_and_repeats(tmp_path: Path, suffix: str) -> None:
    first, second = (timeline(RECORD, tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert len(first) > 10_000
    assert first == second


def test_epochs_are_whole_and_losses_plain_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a short training there is no epoch 1.25, and no loss of 2.3 x 10^0."""
    monkeypatch.setitem(rcParams, "svg.fonttype", "none")
    epochs = tuple(EpochRecord(n, 0, 2.36 - n / 10, 2.35 - n / 10, 0.1, 0.1, 545, 10, n) for n in range(1, 4))
    short = TrainingRecord("short", "data", 0, epochs, (), (), 0.3, 700, 1.0)
    words = re.findall(r"<text[^>]*>([^<]+)</text>", timeline(short, tmp_path / "a.svg").read_text())
    assert {"1", "2", "3", "2.1", "2.2"} <= set(words)
    assert not [word for word in words if word in ("1.25", "1.50") or "times" in word or "\u00d7" in word]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    empty = TrainingRecord("a", "b", 0, (), (), (), 0.0, 0, 0.0)
    with pytest.raises(GraphGrowError, match="there are no stages or candidates to draw"):
        timeline(empty, tmp_path / "a.png")
    with pytest.raises(GraphGrowError, match="no suffix of a figure"):
        timeline(RECORD, tmp_path / "a.docx")
