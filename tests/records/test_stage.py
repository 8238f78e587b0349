"""Records round-trip through JSON text, and refuse what they did not write."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest

from graphgrow.errors import LedgerError
from graphgrow.records import BenchmarkRecord, ComparisonRecord, ExportRecord, LatencyRecord, Record, StageRecord

EXPORT = ExportRecord(
    path="m.onnx",
    bytes=1234,
    external_data=False,
    opset=20,
    versions={"torch": "2.13.0", "onnx": "1.23.2"},
    input_names=("x",),
    output_names=("logits", "output_1"),
    dynamic_batch=True,
    batch_sizes=(1, 3),
    max_error=1e-7,
    bound=2e-6,
    bound_derivation="4 x noise",
    notes=("a note",),
)
LATENCY = LatencyRecord(8, 50, 10, 2.0, 0.25, 2.5, 1.75, 4000.0)
BENCHMARK = BenchmarkRecord(
    "m.onnx", 2_500_000, 1, "CPUExecutionProvider", {"numpy": "2"}, (LATENCY,), 12_300_000, static_batch=8
)
COMPARISON = ComparisonRecord(
    "a.onnx", "b.onnx", 1, 50, 1.02, 0.99, 1.05, 0.95, 2.04, 2.0, 1, "CPUExecutionProvider", {"numpy": "2"}
)
STAGE = StageRecord(
    0, "widen", ("widen(conv1, extra=4)",), 100, 2000, None, 0.9, 1.5, None, math.nan, math.inf, EXPORT, BENCHMARK
)


@pytest.mark.parametrize("record", [EXPORT, LATENCY, BENCHMARK, COMPARISON], ids=lambda record: type(record).__name__)
def test_round_trip_through_text(record: Record) -> None:
    text = json.dumps(record.to_json(), allow_nan=False)
    again = type(record).from_json(json.loads(text))
    assert again == record
    assert json.dumps(again.to_json()) == text


def test_an_export_prints_in_a_few_lines() -> None:
    record = dataclasses.replace(EXPORT, bytes=1_234_567, dynamic_batch=False)
    assert str(record).splitlines() == [
        "m.onnx: 1.23 MB, opset 20, one batch size",
        "  onnxruntime agrees with torch: off by 1.0e-07 at most, 2.0e-06 allowed",
        "  note: a note",
    ]


def test_a_stage_prints_in_words() -> None:
    assert str(STAGE).splitlines()[:3] == [
        "stage 0 widen: 100 parameters, 2,000 FLOPs, accuracy 90.0 %, undetermined, 1.5 s",
        "  widen(conv1, extra=4)",
        str(EXPORT).splitlines()[0],
    ]
    bare = dataclasses.replace(STAGE, export=None, benchmark=None, accuracy_before=0.5, preserved=True, mutations=())
    assert str(bare) == "stage 0 widen: 100 parameters, 2,000 FLOPs, accuracy 50.0 % -> 90.0 %, preserved, 1.5 s"


def test_non_finite_floats_and_nested_records_round_trip() -> None:
    text = json.dumps(STAGE.to_json(), allow_nan=False)
    again = StageRecord.from_json(json.loads(text))
    assert math.isnan(again.max_error)
    assert dataclasses.replace(again, max_error=0.0) == dataclasses.replace(STAGE, max_error=0.0)
    assert again.export == EXPORT
    assert again.benchmark == BENCHMARK


def test_an_integer_is_a_float_too() -> None:
    data = LATENCY.to_json() | {"median_ms": 2}
    assert LatencyRecord.from_json(data) == LATENCY


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unheard_of": 1}, "unheard_of"),
        ({"schema": 2}, "schema 2"),
        ({"schema": True}, "schema True"),
        ({"schema": None}, "schema None"),
        ({"kind": "StageRecord"}, "StageRecord"),
        ({"bytes": "12"}, "ExportRecord.bytes"),
        ({"bytes": True}, "ExportRecord.bytes"),
        ({"bytes": 1.0}, "ExportRecord.bytes"),
        ({"bytes": None}, "ExportRecord.bytes"),
        ({"external_data": 0}, "ExportRecord.external_data"),
        ({"max_error": "many"}, "ExportRecord.max_error"),
        ({"batch_sizes": [1, "3"]}, r"ExportRecord.batch_sizes\[1\]"),
        ({"batch_sizes": "13"}, "ExportRecord.batch_sizes"),
        ({"versions": {"torch": 2}}, "ExportRecord.versions"),
        ({"versions": []}, "ExportRecord.versions"),
    ],
)
def test_foreign_values_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(LedgerError, match=words):
        ExportRecord.from_json(EXPORT.to_json() | change)


def test_missing_keys_are_refused() -> None:
    data = EXPORT.to_json()
    del data["bound"]
    with pytest.raises(LedgerError, match="bound"):
        ExportRecord.from_json(data)


def test_nested_records_are_checked() -> None:
    data = STAGE.to_json()
    data["export"]["extra"] = 1
    with pytest.raises(LedgerError, match="extra"):
        StageRecord.from_json(data)


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(LedgerError, match="JSON object"):
        LatencyRecord.from_json(data)


def test_benchmark_prints_as_a_table() -> None:
    assert str(BENCHMARK).splitlines() == [
        "m.onnx: 2.50 MB, 1 thread, CPUExecutionProvider, peak memory 12.3 MB",
        "batch  median ms  IQR ms  p95 ms  min ms  samples/s  repeats",
        "    8      2.000   0.250   2.500   1.750     4000.0       50",
        "static batch 8: it accepts no other size",
    ]


def test_comparison_prints_ratio_and_interval() -> None:
    assert "1.020 times as long as b.onnx (95 % interval 0.990 to 1.050" in str(COMPARISON)


def test_importing_records_loads_no_onnx() -> None:
    code = (
        "import sys, graphgrow.records; print([m for m in ('onnx', 'onnxruntime', 'onnxscript') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
