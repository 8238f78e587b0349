"""Objectives against values worked out otherwise."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest

import graphgrow as gg
from graphgrow.errors import RecipeError, SearchError
from graphgrow.records import BenchmarkRecord
from graphgrow.search.objectives import OBJECTIVES, Trained, objective
from tests.search.small import data, model


@pytest.fixture(scope="module")
def trained() -> Trained:
    graph = gg.trace(model(), data().training.inputs[:2])
    return Trained(graph, (0.5, 0.7, 0.9), (0.75, 0.5, 0.25), (1.0, 0.5, 0.75), graph.flops)


def test_what_is_counted(trained: Trained) -> None:
    found = {name: OBJECTIVES[name].measure(trained) for name in ("loss", "accuracy", "parameters", "flops")}
    assert found["loss"] == pytest.approx((0.7, 0.2))
    assert found["accuracy"] == pytest.approx((0.5, 0.25))
    assert found["parameters"] == pytest.approx((2 * 9 + 2 + 4 + 32 * 3 + 3, 0.0))
    assert found["flops"] == pytest.approx((2 * (16 * 2 * 9) + 2 * (32 * 3), 0.0))


def test_instability_has_both_parts(trained: Trained) -> None:
    steps, seeds = statistics.stdev(trained.course), statistics.stdev(trained.losses)
    assert OBJECTIVES["instability"].measure(trained)[0] == pytest.approx(math.sqrt(steps**2 + seeds**2))


def test_latency_and_memory_are_measured_once(trained: Trained) -> None:
    latency, spread = OBJECTIVES["latency"].measure(trained)
    assert latency > 0
    assert spread >= 0
    assert OBJECTIVES["memory"].measure(trained)[0] * 1e6 == trained.timed.peak_memory_bytes
    assert latency == trained.timed.latencies[0].median_ms


def test_memory_that_the_system_does_not_tell_is_no_objective(trained: Trained) -> None:
    silent = dataclasses.replace(trained)
    vars(silent)["timed"] = BenchmarkRecord("m.onnx", 1, 1, "CPU", {}, (), peak_memory_bytes=None)
    with pytest.raises(SearchError, match="peak memory of a process; leave the objective `memory` out"):
        OBJECTIVES["memory"].measure(silent)


def test_losses_are_to_be_small_and_nan_is_the_worst() -> None:
    assert objective("accuracy").loss(0.9) == pytest.approx(0.1)
    assert objective("flops").loss(7.0) == 7.0
    assert objective("loss").loss(math.nan) == objective("accuracy").loss(math.nan) == math.inf
    with pytest.raises(RecipeError, match="there is no objective 'speed'"):
        objective("speed")
