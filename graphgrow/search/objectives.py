"""What a candidate is judged by: each objective has a name, a unit, a direction and a best value."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from graphgrow.errors import RecipeError, SearchError
from graphgrow.records import BenchmarkRecord

if TYPE_CHECKING:
    from graphgrow.graph import Graph

TAIL = 20  # the last steps of the training, over which its stability is judged


@dataclass(frozen=True)
class Trained:
    """A trained candidate, as the objectives look at it.

    Attributes:
        graph: of the candidate.
        losses: on the validation part, one for each seed it was trained with; the graph is that of the first.
        accuracies: on the validation part in [0, 1], likewise.
        course: training losses of the last steps, of the first seed.
        flops: of one sample.
    """

    graph: Graph
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    course: tuple[float, ...]
    flops: int

    @cached_property
    def timed(self) -> BenchmarkRecord:
        """What onnxruntime needs for one sample: the candidate is exported and benchmarked at batch size 1."""
        from graphgrow.bench.runtime import benchmark
        from graphgrow.export.to_onnx import export_onnx

        with tempfile.TemporaryDirectory(prefix="graphgrow-") as folder:
            file = Path(folder) / "candidate.onnx"
            export_onnx(self.graph, file, static_batch=1)
            return benchmark(file, (1,), repeats=200)


@dataclass(frozen=True)
class Objective:
    """One thing to be large or small.

    Attributes:
        name: by which recipes call it.
        title: for people.
        short: the same with the unit, for the head of a column.
        unit: of the value; a bare number has none.
        best: the value that nothing can beat.
        measure: value and spread of a trained candidate; the spread is 0 where the value has none.
        scale: factor for people's eyes: an accuracy of 0.97 is shown as 97 %.
        decimals: that people are shown.
    """

    name: str
    title: str
    short: str
    unit: str
    best: float
    measure: Callable[[Trained], tuple[float, float]]
    scale: float = 1.0
    decimals: int = 1

    @property
    def larger_is_better(self) -> bool:
        """Whether the best value is not zero."""
        return self.best > 0

    def loss(self, value: float) -> float:
        """The value turned so that smaller is better and the best is 0; NaN becomes infinite, and never the best."""
        turned = self.best - value if self.larger_is_better else value
        return math.inf if math.isnan(turned) else turned


def _accuracy(trained: Trained) -> tuple[float, float]:
    return statistics.fmean(trained.accuracies), _deviation(trained.accuracies)


def _loss(trained: Trained) -> tuple[float, float]:
    return statistics.fmean(trained.losses), _deviation(trained.losses)


def _flops(trained: Trained) -> tuple[float, float]:
    return float(trained.flops), 0.0


def _parameters(trained: Trained) -> tuple[float, float]:
    return float(trained.graph.parameter_count), 0.0


def _latency(trained: Trained) -> tuple[float, float]:
    one = trained.timed.latencies[0]
    return one.median_ms, one.iqr_ms


def _memory(trained: Trained) -> tuple[float, float]:
    peak = trained.timed.peak_memory_bytes
    if peak is None:
        raise SearchError("this system does not tell the peak memory of a process; leave the objective `memory` out")
    return peak / 1e6, 0.0


def _instability(trained: Trained) -> tuple[float, float]:
    """Over steps and over seeds: the root of the sum of both variances."""
    return math.hypot(_deviation(trained.course), _deviation(trained.losses)), 0.0


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


OBJECTIVES: Mapping[str, Objective] = {
    one.name: one
    for one in (
        Objective("accuracy", "validation accuracy", "accuracy %", "%", 1.0, _accuracy, 100.0),
        Objective("loss", "validation loss", "loss nats", "nats", 0.0, _loss, decimals=4),
        Objective("flops", "FLOPs of one sample", "kFLOPs", "thousands", 0.0, _flops, 1e-3),
        Objective("parameters", "parameters", "parameters", "", 0.0, _parameters, decimals=0),
        Objective("latency", "latency with onnxruntime", "latency ms", "ms", 0.0, _latency, decimals=4),
        Objective("memory", "peak memory with onnxruntime", "memory MB", "MB", 0.0, _memory),
        Objective("instability", "spread of the loss", "instability nats", "nats", 0.0, _instability, decimals=4),
    )
}


def objective(name: str) -> Objective:
    """The objective of a name.

    Raises:
        RecipeError: if there is none; lists those there are.
    """
    if name not in OBJECTIVES:
        raise RecipeError(f"there is no objective {name!r}; there are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
