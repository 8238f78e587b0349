"""What the trainer shows: it fits a terminal of 80 columns, and nothing of it goes into files."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from graphgrow.records import DecisionRecord, EpochRecord, StageRecord
from graphgrow.train.narration import Narration, growth_bar, reasons_of


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


def test_what_is_declined_is_told_once_and_a_start_that_moves_outputs_is_no_preservation() -> None:
    out = io.StringIO()
    narration = Narration(Console(file=out, width=100))
    numbers = {"share": 0.4, "gap": 0.028}
    for reason in ("no room", "no room", "no site"):
        narration.declined(DecisionRecord(3, "dnm", "declined", reason, ("split(0)",), {}, 5, 5, 9, 9), 4)
    said = out.getvalue().split("\n\n")
    assert said == ["\nnot grown after epoch 4: no room", "not grown after epoch 4: no site\n"]
    stage = StageRecord(1, "net2net", ("split(0)",), 9, 9, None, None, 1.0, False, 1e-16, 1e-15)
    narration.growth(stage, DecisionRecord(4, "net2net", "grown", "time", ("split(0)",), numbers, 5, 9, 9, 9), 5)
    words = "function not preserved: its start moved the outputs by 2.8%; the growth itself was off by 1.0e-16"
    assert words in out.getvalue()


def test_each_mutation_has_its_own_reason_below_it_and_lines_fit() -> None:
    numbers = {"gradient_1": 0.06789, "above_chance_1": 2.063, "correlation_1": 0.1, "per_mflop_1": 614.0}
    numbers |= {"entropy_2": 0.7381, "rank_share_2": 0.9}
    assert reasons_of(numbers) == [
        "gradient 0.0679, above chance 2.06, correlation 0.1",
        "entropy 0.738, rank share 0.9",
    ]
    assert reasons_of({"share": 0.414, "gap": 0.02}) == ["share 0.414"]
    out = io.StringIO()
    mutations = ("add-skip(a, target=b)", "split(stem)")
    stage = StageRecord(1, "dnm", mutations, 9, 9, None, None, 1.0, True, 0.0, 0.0)
    narration = Narration(Console(file=out, width=80))
    narration.growth(stage, DecisionRecord(4, "dnm", "grown", "time", mutations, numbers, 5, 9, 9, 9), 5)
    first = "  add-skip(a, target=b)\n    gradient 0.0679, above chance 2.06, correlation 0.1\n"
    assert first + "  split(stem)\n    entropy 0.738, rank share 0.9\n" in out.getvalue()
    both = replace(stage, mutations=(*mutations, "widen(a, extra=1)"))
    narration.growth(both, DecisionRecord(4, "dnm", "grown", "time", both.mutations, {"share": 0.4}, 5, 9, 9, 9), 5)
    assert "  widen(a, extra=1)\n  because of share 0.4\n" in out.getvalue()


def test_the_growth_is_a_line_of_blocks() -> None:
    assert growth_bar([1, 2, 4, 8]) == "▁▂▄█"
    assert len(growth_bar(list(range(1, 1000)))) <= 16
