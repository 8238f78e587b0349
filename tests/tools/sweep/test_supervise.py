"""Whatever ends a child, its row says so and keeps what was found by then."""

from __future__ import annotations

import json
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

import graphgrow as gg
from tools.sweep.child import Request, print_into
from tools.sweep.options import Limits, Options
from tools.sweep.row import Row
from tools.sweep.supervise import run_model

SMALL = Options(sites=1, chain=3, chain_verify="end", input=(2, 4))

FACTORIES = """
import os, signal, threading
import torch
from torch import nn

class Undecided(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x

def never_returns():
    threading.Event().wait()

def takes_too_much():
    torch.empty(3 * 2**30, dtype=torch.uint8)  # never touched: it costs nothing where there is no limit
    return nn.Linear(4, 4)

def kills_itself():
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def half(request: Request) -> None:
    """Finds one thing, begins another, and dies of it."""
    with request.events.open("w") as stream:
        for event in (
            {"event": "pass", "label": "sites of p", "seconds": 1.0, "of": "p", "offered": 3, "refusals": {}},
            {"event": "mutation", "label": "p(a)", "seconds": 2.0, "of": "p", "kind": "preserved", "ratio": 0.5},
            {"event": "begin", "label": "p(b)"},
        ):
            stream.write(json.dumps(event) + "\n")
        stream.write('{"event": "muta')
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def gives_up(request: Request) -> None:
    """Ends before it has begun."""
    print_into(request.log)
    raise SystemExit("no torch here")


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweep_factories.py").write_text(FACTORIES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)  # which the child takes over


def row_of(factory: str, limits: Limits) -> Row:
    return run_model(f"sweep_factories:{factory}", SMALL, limits, {})


def test_a_model_is_swept_to_its_end() -> None:
    options = Options(sites=1, chain=3, chain_verify="end")
    row = run_model("graphgrow:mlp", options, Limits(), {"torch": "2"})
    assert row.complete, row.stopped
    assert not row.wrong, row.problems
    assert (row.model, row.options, row.versions) == ("graphgrow:mlp", options.to_json(), {"torch": "2"})
    assert tuple(row.passes) == gg.pass_names()
    assert all(counts.tried == min(1, counts.offered) for counts in row.passes.values())
    assert row.count("preserved") >= 1
    assert row.onnx == {"parity": 1}
    assert row.chain.length == 3
    assert {**row.chain.parts, "whole": ""} == {"whole": "", "replay": "same", "load": "same", "onnx": "parity"}
    assert row.seconds > row.slowest_seconds > 0
    assert row.peak_gib > 0


@pytest.mark.usefixtures("factories")
def test_a_model_that_cannot_be_captured_is_a_complete_row() -> None:
    row = row_of("Undecided", Limits())
    assert row.complete
    assert row.failure.startswith("CaptureError: ")
    assert "sweep_factories.py:" in row.failure


@pytest.mark.usefixtures("factories")
def test_the_time_limit_ends_a_child() -> None:
    row = row_of("never_returns", Limits(timeout_s=4.0))
    assert not row.complete
    assert row.stopped.startswith("stopped at the time limit of 4 s in `")


@pytest.mark.usefixtures("factories")
def test_the_memory_limit_holds() -> None:
    row = row_of("takes_too_much", Limits(memory_gib=2.0))
    assert not row.complete
    assert row.stopped == "out of memory in 1 steps, the first `capture`"


@pytest.mark.usefixtures("factories")
def test_a_death_is_told_with_its_signal_and_the_last_words() -> None:
    row = row_of("kills_itself", Limits())
    assert not row.complete
    assert row.stopped == "died (SIGKILL) in `capture`: the last words"


def test_what_a_killed_child_had_found_is_kept() -> None:
    row = run_model("m", Options(), Limits(), {}, work=half)
    assert row.stopped == "died (SIGKILL) in `p(b)`"
    assert row.passes["p"].outcomes == {"preserved": 1}
    assert (row.worst, row.complete) == (0.5, False)


def test_a_child_that_does_not_start_says_why() -> None:
    row = run_model("m", Options(), Limits(), {}, work=gives_up)
    assert row.stopped == "died (exit status 1) in `the start`: no torch here"


def test_an_interruption_leaves_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    real = BaseProcess.join

    def join(process: BaseProcess, timeout: float | None = None) -> None:
        real(process, timeout)
        if timeout is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(BaseProcess, "join", join)
    row = run_model("m", Options(), Limits(), {}, work=half)
    assert row.stopped == "interrupted in `p(b)`"
    assert row.count("preserved") == 1
