"""What is recorded of growth stages, exports and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphgrow.records.base import Record


@dataclass(frozen=True)
class ExportRecord(Record):
    """One ONNX file that agrees with torch; prints in a few lines.

    Attributes:
        path: file name, relative to the record.
        bytes: size of the file and its external data.
        external_data: whether the weights lie in a file of their own beside it.
        opset: version of the standard ONNX operator set.
        versions: of torch, onnx and onnxruntime.
        input_names: of the graph's inputs, in call order.
        output_names: of the graph's outputs, in order.
        dynamic_batch: whether axis 0 accepts any batch size; `notes` says why not.
        batch_sizes: those at which onnxruntime was compared with torch.
        max_error: largest absolute error of onnxruntime, at the output that came nearest to its bound.
        bound: what that error was allowed to be.
        bound_derivation: how the bound came about, in words.
        notes: what a reader should know: a static batch, outputs that say nothing.
    """

    path: str
    bytes: int
    external_data: bool
    opset: int
    versions: dict[str, str]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_batch: bool
    batch_sizes: tuple[int, ...]
    max_error: float
    bound: float
    bound_derivation: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        batch = "any batch size" if self.dynamic_batch else "one batch size"
        lines = [
            f"{self.path}: {self.bytes / 1e6:.2f} MB, opset {self.opset}, {batch}",
            f"  onnxruntime agrees with torch: off by {self.max_error:.1e} at most, {self.bound:.1e} allowed",
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class LatencyRecord(Record):
    """The time of one inference at one batch size, over `repeats` timed runs after `warm_up` others."""

    batch_size: int
    repeats: int
    warm_up: int
    median_ms: float
    iqr_ms: float
    p95_ms: float
    min_ms: float
    throughput_per_s: float


@dataclass(frozen=True)
class BenchmarkRecord(Record):
    """What onnxruntime needs for one ONNX file; prints as a table.

    Attributes:
        path: file name, relative to the record.
        bytes: size of the file and its external data.
        threads: intra-operator threads.
        provider: onnxruntime's execution provider.
        versions: of onnxruntime, numpy and Python.
        latencies: one for each batch size.
        peak_memory_bytes: largest resident memory beyond the interpreter with onnxruntime loaded; None where the
            system does not tell.
        static_batch: the only batch size that the file accepts; None where any does.
    """

    path: str
    bytes: int
    threads: int
    provider: str
    versions: dict[str, str]
    latencies: tuple[LatencyRecord, ...]
    peak_memory_bytes: int | None
    static_batch: int | None = None

    def __str__(self) -> str:
        memory = "unknown" if self.peak_memory_bytes is None else f"{self.peak_memory_bytes / 1e6:.1f} MB"
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        head = f"{self.path}: {self.bytes / 1e6:.2f} MB, {threads}, {self.provider}, peak memory {memory}"
        rows: list[tuple[str, ...]] = [("batch", "median ms", "IQR ms", "p95 ms", "min ms", "samples/s", "repeats")]
        for one in self.latencies:
            times = (one.median_ms, one.iqr_ms, one.p95_ms, one.min_ms)
            numbers = (*(f"{t:.3f}" for t in times), f"{one.throughput_per_s:.1f}")
            rows.append((str(one.batch_size), *numbers, str(one.repeats)))
        note = [] if self.static_batch is None else [f"static batch {self.static_batch}: it accepts no other size"]
        return "\n".join([head, *_table(rows), *note])


@dataclass(frozen=True)
class ComparisonRecord(Record):
    """Two ONNX files timed in turns: how much longer the first takes than the second.

    Attributes:
        path_a: file name of the first, relative to the record.
        path_b: file name of the second.
        batch_size: samples in each run.
        pairs: timed pairs of runs, one run of each file.
        ratio: median time of the first over that of the second; above 1 the first is slower.
        low: lower end of the bootstrap interval of the ratio, pairs resampled.
        high: upper end.
        confidence: of the interval.
        median_a_ms: median time of the first.
        median_b_ms: median time of the second.
        threads: intra-operator threads.
        provider: onnxruntime's execution provider.
        versions: of onnxruntime, numpy and Python.
    """

    path_a: str
    path_b: str
    batch_size: int
    pairs: int
    ratio: float
    low: float
    high: float
    confidence: float
    median_a_ms: float
    median_b_ms: float
    threads: int
    provider: str
    versions: dict[str, str]

    def __str__(self) -> str:
        return (
            f"{self.path_a} takes {self.ratio:.3f} times as long as {self.path_b} "
            f"({100 * self.confidence:g} % interval {self.low:.3f} to {self.high:.3f}; medians {self.median_a_ms:.3f} "
            f"and {self.median_b_ms:.3f} ms, batch {self.batch_size}, {self.pairs} pairs)"
        )


@dataclass(frozen=True)
class StageRecord(Record):
    """One growth stage: what was applied, what it cost, and whether the function was preserved.

    Attributes:
        index: of the stage, from 0.
        name: of the stage.
        mutations: in text form, in order.
        parameters: number of the grown model's parameters.
        flops: floating-point operations of one forward pass of one sample.
        accuracy_before: held-out accuracy after the mutations and before training, in [0, 1].
        accuracy_after: the same after training.
        seconds: the stage took.
        preserved: the verdict; None is undetermined.
        max_error: that verification saw.
        bound: that it allowed.
        export: of the grown model.
        benchmark: of the exported file.
    """

    index: int
    name: str
    mutations: tuple[str, ...]
    parameters: int
    flops: int
    accuracy_before: float | None
    accuracy_after: float | None
    seconds: float
    preserved: bool | None
    max_error: float
    bound: float
    export: ExportRecord | None = None
    benchmark: BenchmarkRecord | None = None

    def __str__(self) -> str:
        verdict = {True: "preserved", False: "not preserved", None: "undetermined"}[self.preserved]
        shares = [f"{100 * share:.1f} %" for share in (self.accuracy_before, self.accuracy_after) if share is not None]
        accuracy = [f"accuracy {' -> '.join(shares)}"] if shares else []
        sizes = f"{self.parameters:,} parameters, {self.flops:,} FLOPs"
        head = ", ".join([f"stage {self.index} {self.name}: {sizes}", *accuracy, verdict, f"{self.seconds:.1f} s"])
        parts = [str(part) for part in (self.export, self.benchmark) if part is not None]
        return "\n".join([head, *(f"  {mutation}" for mutation in self.mutations), *parts])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
