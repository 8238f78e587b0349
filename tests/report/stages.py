"""Records of a made-up run, for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace

from graphgrow.records import BenchmarkRecord, ExportRecord, LatencyRecord, StageRecord

BARE = StageRecord(0, "base", (), 545, 33_000, None, None, 1.0, True, 0.0, 0.0)


def latency(size: int) -> LatencyRecord:
    return LatencyRecord(size, 50, 10, 0.25 * size, 0.02, 0.3, 0.2, 4000.0)


def stages() -> list[StageRecord]:
    """A base, a widening and a split."""
    timed = BenchmarkRecord("x.onnx", 5000, 1, "CPUExecutionProvider", {}, (latency(8), latency(1)), None)
    export = ExportRecord("x.onnx", 5000, False, 20, {}, ("x",), ("y",), True, (1,), 1e-8, 1e-7, "noise")
    base = replace(BARE, accuracy_before=0.08, accuracy_after=0.893, export=export, benchmark=timed)
    wide = replace(base, index=1, name="widen", mutations=("widen(stem, extra=1)",), parameters=1_226)
    return [base, wide, replace(wide, index=2, name="split", mutations=("split(stem)", "split(a[0])"), flops=2_500_000)]
