"""Events add up to rows, wherever they break off."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from tools.sweep.row import Row, add_events

MODEL: dict[str, Any] = {
    "event": "model", "label": "analysis", "seconds": 1.0, "input": "2x3", "way": "fx", "modes": "eval", "nodes": 5,
    "parameters": 7, "growable": 0.5, "frozen": {"a model output": 1}, "unknown": {},
}  # fmt: skip
PASS = {"event": "pass", "label": "sites of p", "seconds": 0.5, "of": "p", "offered": 9, "refusals": {"too small": 2}}
DONE = {"event": "done", "took": 20.0, "peak_gib": 1.5}


def trial(kind: str, ratio: float | None = None, reason: str = "", seconds: float = 1.0) -> dict[str, Any]:
    return {
        "event": "mutation", "label": f"p({kind})", "seconds": seconds, "of": "p", "kind": kind, "reason": reason,
        "ratio": ratio,
    }  # fmt: skip


def chain(part: str, kind: str, ratio: float | None = None) -> dict[str, Any]:
    return {"event": "chain", "label": part, "seconds": 1.0, "part": part, "kind": kind, "reason": "", "ratio": ratio}


def added(*events: dict[str, Any]) -> Row:
    row = Row("m", {"sites": 1}, {"torch": "2"})
    add_events(row, events)
    return row


def test_events_add_up() -> None:
    length = {"event": "chain", "part": "length", "length": 2, "growth": 1.5}
    steps = [chain("step", "preserved", 0.4), chain("step", "preserved", 0.1), length, chain("onnx", "parity", 0.9)]
    row = added(MODEL, PASS, trial("preserved", 0.2), trial("preserved", 0.3, seconds=7.0), *steps, DONE)
    assert (row.nodes, row.growable, row.frozen) == (5, 0.5, {"a model output": 1})
    counts = row.passes["p"]
    assert (counts.offered, counts.tried, counts.outcomes, counts.refusals) == (
        9, 2, {"preserved": 2}, {"too small": 2},
    )  # fmt: skip
    assert (row.chain.length, row.chain.growth, row.chain.steps, row.chain.parts) == (
        2, 1.5, {"preserved": 2}, {"onnx": "parity"},
    )  # fmt: skip
    assert (row.worst, row.worst_onnx) == (0.4, 0.9)
    assert (row.slowest, row.slowest_seconds, row.seconds, row.peak_gib) == ("p(preserved)", 7.0, 20.0, 1.5)
    assert row.complete
    assert not row.wrong
    assert row.problems == []


@pytest.mark.parametrize("kind", ["wrong", "declined", "error"])
def test_what_was_promised_and_is_not_so_makes_a_row_wrong(kind: str) -> None:
    row = added(MODEL, PASS, trial("preserved", 0.2), trial(kind, reason="because"), DONE)
    assert row.wrong
    assert row.problems == [f"{kind}: p({kind}): because"]
    assert row.count() == 2
    assert row.count("preserved") == row.count(kind) == 1
    assert added(chain("step", kind), DONE).wrong
    assert added(chain("replay", kind), DONE).wrong
    assert added({**PASS, "kind": kind, "reason": "no sites"}, DONE).wrong


@pytest.mark.parametrize("kind", ["undetermined", "refused"])
def test_what_is_merely_open_is_not_wrong(kind: str) -> None:
    row = added(MODEL, PASS, trial(kind, reason="nothing to compare"), DONE)
    assert not row.wrong
    assert row.complete
    assert row.problems


def test_what_was_found_before_a_stop_is_kept() -> None:
    row = added(MODEL, PASS, trial("preserved", 0.2), {"event": "begin", "label": "p(next)"})
    assert not row.complete
    assert row.count("preserved") == 1
    assert row.seconds == 2.5


def test_out_of_memory_is_a_stop_with_its_first_place() -> None:
    row = added(MODEL, PASS, trial("memory", reason="12 bytes"), trial("memory", reason="12 bytes"), DONE)
    assert not row.complete
    assert row.stopped == "out of memory in 2 steps, the first `p(memory)`"
    assert not row.wrong


def test_a_refused_model_is_complete_with_its_reason() -> None:
    failed = {"event": "failed", "label": "capture", "seconds": 1.0, "kind": "error", "reason": "CaptureError: no"}
    row = added(failed, DONE)
    assert row.complete
    assert row.failure == "CaptureError: no"


def test_rows_come_back_from_json() -> None:
    row = added(MODEL, PASS, trial("preserved", 0.2), chain("whole", "wrong"), DONE)
    assert Row.from_json(json.loads(json.dumps(asdict(row)))) == row
