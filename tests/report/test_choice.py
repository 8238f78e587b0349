"""Choices as a table and a figure, from records alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from graphgrow.errors import GraphGrowError
from graphgrow.records import ChoiceRecord, RoundRecord
from graphgrow.report import choice_figure, choice_table

SURE = ChoiceRecord(
    "stem", ("present", "conv-5"), (0, 10, 20), ((0.5, 0.5), (0.3, 0.7), (0.1, 0.9)), "conv-5", "conv-5"
)
HELD = ChoiceRecord("relu", ("present", "identity"), (0, 20), ((0.5, 0.5), (0.4, 0.6)), "identity", "present")
BLIND = ChoiceRecord("head", ("present", "none"), (), (), "present", "none")


def rounds(*choices: ChoiceRecord) -> list[RoundRecord]:
    return [RoundRecord(0, (), choices, True, 1.0, 1.1, 0.5, 0.4, 0.6, 0.6, None, 10, 20, 1.0)]


def test_the_table_says_what_was_kept_and_where_the_guard_stepped_in() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(choice_table(rounds(SURE, HELD, BLIND)))
    lines = captured.get().splitlines()
    assert lines[1].split() == ["0", "stem", "conv-5", "0.90", "present", "0.10"]
    assert "present (guard: identity led)" in lines[2]
    assert lines[2].split()[-2:] == ["identity", "0.60"]
    assert lines[3].split()[:4] == ["0", "head", "none", "(guard:"]


@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_figure_has_a_panel_for_each_site(count: int, tmp_path: Path) -> None:
    file = choice_figure(rounds(*[SURE, HELD] * count, BLIND), tmp_path / "choices.svg")
    text = file.read_text(encoding="utf-8")
    assert text.count(">stem<") == text.count(">relu<") == count
    assert ">head<" not in text
    assert ">identity<" in text


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(GraphGrowError, match="no stages or candidates to draw"):
        choice_figure(rounds(BLIND), tmp_path / "x.png")
