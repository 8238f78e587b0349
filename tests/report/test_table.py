"""The table of growth stages, as text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from graphgrow.records import StageRecord
from graphgrow.report import table
from tests.report.stages import BARE, stages


def rendered(records: Sequence[StageRecord], width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(table(records))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_every_stage_has_its_row_and_every_mutation_its_line() -> None:
    assert rendered(stages()) == [
        "stage    mutations             params  MFLOPs  before   after   latency  ONNX  verified",
        "0 base                            545   0.033   8.0 %  89.3 %  0.250 ms  5 kB",
        "1 widen  widen(stem, extra=1)   1,226   0.033   8.0 %  89.3 %  0.250 ms  5 kB       yes",
        "2 split  split(stem)            1,226    2.50   8.0 %  89.3 %  0.250 ms  5 kB       yes",
        "         split(a[0])",
    ]


def test_where_there_is_little_room_mutations_follow_on_lines_of_their_own() -> None:
    long = replace(stages()[2], mutations=("widen(stages.0.0.conv1, extra=16)", "split(stem)"))
    assert rendered([*stages()[:1], long], 70) == [
        "stage    params  MFLOPs  before   after   latency  ONNX  verified",
        "0 base      545   0.033   8.0 %  89.3 %  0.250 ms  5 kB",
        "2 split   1,226    2.50   8.0 %  89.3 %  0.250 ms  5 kB       yes",
        "  widen(stages.0.0.conv1, extra=16)",
        "  split(stem)",
    ]


@pytest.mark.parametrize("width", range(26, 140, 3))
def test_at_any_width_what_is_shown_is_whole(width: int) -> None:
    long = replace(stages()[2], mutations=("widen(stages.0.0.conv1, extra=16)", "split(stem)", "split(a[0])", "b"))
    lines = rendered([*stages(), long], width)
    assert max(map(len, lines)) <= width
    text = " ".join("".join(lines).split())
    assert "…" not in text
    for row in ([545, "89.3 %"], ["1,226", "89.3 %"]):
        titles = lines[0].split()
        assert all(str(cell) in text for title, cell in zip(("params", "after"), row, strict=True) if title in titles)
    assert "".join(long.mutations[0].split()) in "".join("".join(lines).split()), "folded, and not cut"
    missing = {"params", "MFLOPs", "before", "latency", "ONNX"} - set(lines[0].split())
    assert all(title in text for title in missing), "what is left out is named"


def test_columns_without_a_value_are_left_out() -> None:
    assert rendered([BARE]) == ["stage   params  MFLOPs", "0 base     545   0.033"]


@pytest.mark.parametrize(("preserved", "word"), [(False, "NO"), (None, "undetermined")])
def test_a_verdict_that_is_no_yes_is_said(preserved: bool | None, word: str) -> None:
    record = replace(stages()[1], preserved=preserved)
    assert rendered([record], 120)[1].endswith(word)


def test_no_records_give_no_rows() -> None:
    assert rendered([]) == [""]
