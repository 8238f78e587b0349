"""What is patched while a trace runs is torch's own again afterwards, also where the trace fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.capture.of_torch import (
    masks_taken_as_given,
    own_backwards_refused,
    parameters_of_distributions_unchecked,
    wrapped_functions_open,
)
from tests.preserved import assert_preserved

PATCHES = [
    masks_taken_as_given,
    own_backwards_refused,
    parameters_of_distributions_unchecked,
    wrapped_functions_open,
]


class Doubled(torch.autograd.Function):
    """With a backward that is not the forward's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


doubled = Doubled.apply  # as torch's own pages write it


class Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(x)


class Bound(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return doubled(x)


@pytest.mark.parametrize("patch", PATCHES)
def test_torch_is_as_it_was(patch: Callable[[], AbstractContextManager[None]]) -> None:
    def state() -> tuple[object, ...]:
        wrapped = dict(fx._symbolic_trace._wrapped_fns_to_patch)
        checked = torch.distributions.Distribution._validate_args
        return (
            nn.modules.transformer._detect_is_causal_mask,
            torch.autograd.Function.__dict__["apply"],
            wrapped,
            checked,
        )

    before = state()
    with pytest.raises(KeyError), patch():
        raise KeyError
    assert state() == before


@pytest.mark.parametrize("model", [Own(), Bound()])
def test_a_backward_of_its_own_is_refused_on_proxies_alone(model: nn.Module) -> None:
    x = torch.ones(2, requires_grad=True)
    with own_backwards_refused():
        Doubled.apply(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(2))
    with pytest.raises(gg.CaptureError, match="Doubled has a backward of its own"):
        gg.trace(model, torch.ones(2, 3), way="fx")


def test_a_mask_is_not_looked_into() -> None:
    seen = nn.modules.transformer._detect_is_causal_mask
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    assert seen(mask, None, 3) is True
    with masks_taken_as_given():
        assert nn.modules.transformer._detect_is_causal_mask(mask, None, 3) is False


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.deviation = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.body(x))
        policy = torch.distributions.Normal(self.mean(hidden), self.deviation(hidden).exp())
        return policy.log_prob(action).sum(-1), policy.entropy().sum(-1)


def test_a_distribution_is_traced_whether_or_not_its_parameters_are_checked() -> None:
    """Dynamo ends the checks of a process for good; a graph must not depend on who was captured before."""
    kind, model, inputs = torch.distributions.Distribution, Policy().double(), torch.randn(2, 4, 3).double()
    before, texts = kind._validate_args, []
    try:
        for checked in (True, False):
            kind.set_default_validate_args(checked)
            graph = gg.trace(model, (inputs[0], inputs[1, :, :2]), way="fx")
            assert kind._validate_args is checked
            texts.append(graph.text())
    finally:
        kind.set_default_validate_args(before)
    assert texts[0] == texts[1]
    for mutation in ("widen(body, extra=2)", "split(body)"):
        assert_preserved(graph, gg.apply(graph, mutation), batch_sizes=(None, 3))
