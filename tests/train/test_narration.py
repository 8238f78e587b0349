"""What the trainer shows: it fits a terminal of 80 columns, and nothing of it goes into files."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from graphgrow.records import EpochRecord
from graphgrow.train.narration import Narration, growth_bar


def epoch(number: int, parameters: int) -> EpochRecord:
    return EpochRecord(number, 0, 1.2345, 2.3456, 0.876, 1e-3, parameters, 1000, 1000)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_live_lines_fit_80_columns(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=terminal, color_system=None)
    with Narration(console).progress(100) as watch:
        for number in range(1, 61):
            watch(epoch(number, 9_545 + 100 * number))
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", out.getvalue()).splitlines()
    assert bool(lines) == terminal
    shown = [line.rstrip() for line in lines if "loss" in line]
    assert all("…" not in line and len(line) <= 80 for line in lines)
    if terminal:
        assert shown[-1].startswith("  loss 1.234, validation 2.346 (87.6%), 15,545 parameters ")
        assert any(re.search(r"epoch 60/100 ━.* \d:\d\d:\d\d", line) for line in lines)


def test_the_growth_is_a_line_of_blocks() -> None:
    assert growth_bar([1, 2, 4, 8]) == "▁▂▄█"
    assert len(growth_bar(list(range(1, 1000)))) <= 16
