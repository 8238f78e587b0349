"""What is patched while a trace runs is torch's own again afterwards, also where the trace fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.capture.of_torch import masks_taken_as_given, own_backwards_refused, wrapped_functions_open


class Doubled(torch.autograd.Function):
    """With a backward that is not the forward's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(x)


@pytest.mark.parametrize("patch", [masks_taken_as_given, own_backwards_refused, wrapped_functions_open])
def test_torch_is_as_it_was(patch: Callable[[], AbstractContextManager[None]]) -> None:
    def state() -> tuple[object, ...]:
        wrapped = dict(fx._symbolic_trace._wrapped_fns_to_patch)
        return nn.modules.transformer._detect_is_causal_mask, torch.autograd.Function.__dict__["apply"], wrapped

    before = state()
    with pytest.raises(KeyError), patch():
        raise KeyError
    assert state() == before


def test_a_backward_of_its_own_is_refused_on_proxies_alone() -> None:
    x = torch.ones(2, requires_grad=True)
    with own_backwards_refused():
        Doubled.apply(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(2))
    with pytest.raises(gg.CaptureError, match="Doubled has a backward of its own"):
        gg.trace(Own(), torch.ones(2, 3), way="fx")


def test_a_mask_is_not_looked_into() -> None:
    seen = nn.modules.transformer._detect_is_causal_mask
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    assert seen(mask, None, 3) is True
    with masks_taken_as_given():
        assert nn.modules.transformer._detect_is_causal_mask(mask, None, 3) is False
