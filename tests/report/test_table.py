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


def test_where_there_is_little_room_each_mutation_keeps_to_its_line() -> None:
    long = replace(stages()[2], mutations=("widen(stages.0.0.conv1, extra=16)", "split(stem)"))
    assert rendered([long], 80) == [
        "stage    mutations      params  MFLOPs  before   after   latency  ONNX  verified",
        "2 split  widen(stages…   1,226    2.50   8.0 %  89.3 %  0.250 ms  5 kB       yes",
        "         split(stem)",
    ]


def test_columns_without_a_value_are_left_out() -> None:
    assert rendered([BARE]) == ["stage   params  MFLOPs", "0 base     545   0.033"]


@pytest.mark.parametrize(("preserved", "word"), [(False, "NO"), (None, "undetermined")])
def test_a_verdict_that_is_no_yes_is_said(preserved: bool | None, word: str) -> None:
    record = replace(stages()[1], preserved=preserved)
    assert rendered([record], 120)[1].endswith(word)


def test_no_records_give_no_rows() -> None:
    assert table([]).row_count == 0
