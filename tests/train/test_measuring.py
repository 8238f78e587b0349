"""What is measured of one network between two decisions."""

from __future__ import annotations

import pytest
import torch

from graphgrow.errors import SignalError
from graphgrow.signals.watch import Watch
from graphgrow.train.measuring import Measuring
from graphgrow.train.policy import make_policy
from tests.train import small


def test_signals_gather_until_they_are_forgotten_and_a_state_brings_them_back() -> None:
    graph = small.graph()
    measuring = Measuring(make_policy("gradmax"), None, 0)
    assert measuring.state() is None
    signals = measuring.signals(graph, 0)
    assert measuring.signals(graph, 0) is signals
    with Watch(graph.module, signals.values()):
        small.loss(graph.module).backward()
    found = measuring.evidence(graph, 0, 3)
    assert found.stage == 3
    assert found.directions
    other = Measuring(make_policy("gradmax"), None, 0)
    other.restore(graph, 0, measuring.state())
    assert torch.equal(other.evidence(graph, 0, 3).directions["0"].values, found.directions["0"].values)
    measuring.forget()
    assert measuring.signals(graph, 1) is not signals
    with pytest.raises(SignalError, match=r"run loss\.backward"):
        measuring.evidence(graph, 1, 3)


@pytest.mark.parametrize("held_out", [False, True])
def test_held_out_data_are_asked_about_connections_and_leave_gradients_and_mode_alone(held_out: bool) -> None:
    graph = small.graph()
    measuring = Measuring(make_policy("dnm"), small.loss if held_out else None, 0)
    graph.module.train()
    with Watch(graph.module, measuring.signals(graph, 0).values()):
        small.loss(graph.module).backward()
    gradients = [parameter.grad.clone() for parameter in graph.module.parameters() if parameter.grad is not None]
    evidence = measuring.evidence(graph, 0, 0)
    assert evidence.skips
    assert bool(evidence.held_out) == held_out
    if held_out:  # the same batch: its gradients agree with themselves
        best = evidence.skips[0]
        assert evidence.held_out[best.mutation] == pytest.approx(1.0, abs=1e-5)
    assert graph.module.training
    for parameter, gradient in zip(graph.module.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)
