"""A graph that would compute something else than its model is refused where it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.agreement import refuse_another_function
from tests.rewrite.small_models import Forward


def _counting(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.calls = getattr(m, "calls", 0) + 1
    result: torch.Tensor = m.linear(x) * m.calls
    return result


@pytest.mark.parametrize(("run", "training"), [(_counting, False)])
def test_what_a_trace_gets_wrong_is_refused(run: Callable[..., Any], training: bool) -> None:
    torch.manual_seed(0)
    model = Forward(run, linear=nn.Linear(3, 3)).train(training)
    with pytest.raises(gg.CaptureError, match="computes something else than the model: it is off by"):
        gg.trace(model, torch.randn(2, 3), way="fx")


def test_random_forwards_and_inputs_in_place_are_no_difference() -> None:
    """Random numbers are the same in both runs, and the user's inputs are left alone."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        result: torch.Tensor = m.linear(x + torch.rand_like(x))
        return result

    model, x = Forward(run, linear=nn.Linear(3, 3)), torch.randn(2, 3)
    before, state = x.clone(), torch.get_rng_state()
    gg.trace(model, x)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("found", "wanted", "fine"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0 + 1e-4], [1.0, 2.0], True),
        ([1.0, 2.0 + 1e-2], [1.0, 2.0], False),
        ([NAN, INF], [NAN, INF], True),
        ([NAN, 2.0], [1.0, 2.0], False),
        ([1.0, 2.0], [NAN, 2.0], False),
        ([INF, 2.0], [-INF, 2.0], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0, 1e-2], [0.0, 0.0], False),
    ],
)
def test_numbers(found: list[float], wanted: list[float], fine: bool) -> None:
    pair = torch.tensor(found), torch.tensor(wanted)
    if fine:
        refuse_another_function(nn.Identity(), *pair)
        return
    with pytest.raises(gg.CaptureError, match="computes something else"):
        refuse_another_function(nn.Identity(), *pair)


def test_structure_shape_and_type() -> None:
    x = torch.zeros(2)
    for other, words in (((x, x), "returns 1 values, the model 2"), (torch.zeros(3), "shape"), (x.double(), "float64")):
        with pytest.raises(gg.CaptureError, match=words):
            refuse_another_function(nn.Identity(), x, other)
    refuse_another_function(nn.Identity(), torch.tensor([1]), torch.tensor([2]))
