"""Captures that take longer than they may: which step is still to come is said, and nothing of the model is changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.model import clock
from graphgrow.capture.model.clock import Clock
from tests.capture.ticking import Ticking

STEPS = {
    "fx": (
        "running the model",
        "tracing in train mode",
        "tracing in eval mode",
        "comparing graph and model in eval mode",
        "comparing graph and model in train mode",
    ),
    "dynamo": (
        "running the model",
        "recording with Dynamo in eval mode",
        "recording with Dynamo in train mode",
        "recording with Dynamo in other dtypes",
        "comparing graph and model in eval mode",
        "comparing graph and model in train mode",
        "comparing graph and model at other sizes",
    ),
}


@pytest.mark.parametrize(("way", "step"), [(way, step) for way, steps in STEPS.items() for step in steps])
def test_the_step_that_is_still_to_come_is_named(way: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", Ticking())
    monkeypatch.setattr(Clock, "progress", lambda watch, come_to: None)  # steps alone are looked at
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = STEPS[way].index(step)
    with pytest.raises(gg.TimeBudgetError, match=f"budget_s=.*, and {step} is still to come") as caught:
        gg.trace(model, torch.randn(2, 3), way=way, budget_s=2 * done + 0.5)
    assert all(f"{name} 1.0 s" in str(caught.value) for name in STEPS[way][:done])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(part.training for part in model.modules())


def test_a_budget_that_is_kept_changes_nothing() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3)
    assert gg.trace(model, x, budget_s=1e6).text() == gg.trace(model, x).text()


def test_what_is_out_of_time_is_not_tried_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", Ticking())
    with pytest.raises(gg.TimeBudgetError, match=r"^the capture has taken"):
        gg.trace(nn.Linear(3, 4), torch.randn(2, 3), budget_s=2.5)


def test_steps_of_one_name_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", Ticking())
    watch: Any = Clock()
    for _ in range(3):
        with watch.step("one"):
            pass
    assert watch.seconds == {"one": 3.0}


class Endless(nn.Module):
    """A forward whose trace ends by the clock alone, but for a limit that the test falls over."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 3), 0

    def forward(self, x: Any) -> Any:
        if not isinstance(x, torch.fx.Proxy):
            return self.layer(x)
        while self.calls < 1000:
            self.calls += 1
            x = self.layer(x) + 1
        return x


def test_a_trace_ends_within_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", Ticking())
    model, x = Endless().eval(), torch.randn(2, 3)
    with pytest.raises(gg.TimeBudgetError, match=r"tracing in train mode has come to operator 1\d: running the model"):
        gg.trace(model, x, budget_s=20.0)
    assert model.calls < 20
    assert not model.training
    assert torch.isfinite(model(x)).all()


def test_time_is_not_asked_for_where_there_is_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", ticking := Ticking())
    watch = Clock()
    before = ticking.now
    watch.progress(lambda: "operator 7")
    assert ticking.now == before
