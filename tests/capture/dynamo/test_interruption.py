"""Recordings by Dynamo that take longer than they may: they end at a line of the model, and leave nothing behind."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.dynamo import fallback
from graphgrow.capture.dynamo.interruption import ended_by
from graphgrow.capture.model import clock
from graphgrow.capture.model.clock import Clock
from tests.capture.ticking import Ticking

LOG = logging.getLogger("torch._dynamo.symbolic_convert.__trace_source")


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ticking]:
    """Time that passes by being asked for; what Dynamo's log of lines was is to be what it is behind the test."""
    stands = Ticking(at_work=True)
    monkeypatch.setattr(clock, "time", stands)
    before = (LOG.level, list(LOG.filters))
    yield stands
    assert (LOG.level, list(LOG.filters)) == before


class Unrolled(nn.Module):
    """A loop that Dynamo unrolls, in front of what it refuses and torch.fx too: a path that values decide."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.layer, self.steps = nn.Linear(3, 3), steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.steps):
            x = x + 1  # unrolled
        return self.layer(x) if x.sum() > 0 else x


@pytest.mark.usefixtures("ticking")
def test_a_recording_ends_at_the_line_that_it_has_come_to() -> None:
    model, x = Unrolled(10_000).eval(), torch.randn(2, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(gg.TimeBudgetError) as caught:
        gg.trace(model, x, way="dynamo", budget_s=40)
    text = str(caught.value)
    assert "more than budget_s=40, and recording with Dynamo in eval mode has come to" in text
    assert "test_interruption.py" in text
    assert "running the model 2.0 s" in text
    assert "from user code" not in text  # as Dynamo would add
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    plain = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert gg.trace(plain, x, way="dynamo", budget_s=math.inf).way == "dynamo"  # Dynamo goes on as before


@pytest.mark.usefixtures("ticking")
def test_without_a_budget_a_recording_has_one_of_its_own_and_the_cause_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "MOST_S", 30.0)
    with pytest.raises(gg.TimeBudgetError) as caught:
        gg.trace(Unrolled(10_000).eval(), torch.randn(2, 3))
    text = str(caught.value)
    assert text.startswith("Unrolled cannot be traced: ")
    assert (
        "Dynamo finds no graph in time: recording with Dynamo in eval mode has taken 31.0 s of processor time" in text
    )
    assert "more than the 30 s that it gets" in text
    assert "x = x + 1  # unrolled" in text
    assert text.count("leaves=[TheSubmodule]") == 1


@pytest.mark.usefixtures("ticking")
def test_a_budget_that_is_larger_than_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Dynamo refuses at its end is refused for what it is."""
    monkeypatch.setattr(fallback, "MOST_S", 30.0)
    with pytest.raises(gg.CaptureError) as caught:
        gg.trace(Unrolled(40).eval(), torch.randn(2, 3), way="dynamo", budget_s=1e6)
    assert not isinstance(caught.value, gg.TimeBudgetError)


@pytest.mark.usefixtures("ticking")
def test_what_passes_over_the_error_does_not_go_on() -> None:
    """As Dynamo does where it only tries something."""
    watch, seen = Clock(1.0), list[str]()

    def tries() -> None:
        with ended_by(watch):
            try:
                LOG.debug("in time")
                LOG.debug("too late")
            except gg.TimeBudgetError as error:
                seen.append(str(error))

    with pytest.raises(gg.TimeBudgetError, match="has come to no line of the model's yet") as caught:
        tries()
    assert seen == [str(caught.value)]


@pytest.mark.usefixtures("ticking")
def test_other_errors_are_those_that_they_are() -> None:
    with pytest.raises(KeyError), ended_by(Clock(1e6)):
        raise KeyError("another")


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("asked_for", [True, False])
def test_lines_are_logged_where_somebody_asked_for_them_alone(asked_for: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", seen.append)
    LOG.addHandler(handler)
    level = LOG.level
    try:
        LOG.setLevel(logging.DEBUG if asked_for else logging.WARNING)
        with ended_by(Clock(1e6)):
            LOG.debug("a line")
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
    assert bool(seen) == asked_for


@pytest.mark.usefixtures("ticking")
def test_a_clock_without_an_end_listens_to_nothing() -> None:
    with ended_by(Clock()):
        assert not LOG.filters
