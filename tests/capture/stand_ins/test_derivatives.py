"""Autograd functions whose backward is the derivative of their forward stand in a graph by their operators."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.capture.stand_ins.derivatives import backward_is_derivative, run_forward
from graphgrow.layers import OwnFunction
from tests.preserved import assert_preserved


class Normed(torch.autograd.Function):
    """A layer norm over channels of maps, that keeps what its backward needs and no more."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.eps = eps
        deviation = (x.var(1, keepdim=True, unbiased=False) + eps).sqrt()
        standard = (x - x.mean(1, keepdim=True)) / deviation
        ctx.save_for_backward(standard, deviation, weight)
        return weight.view(1, -1, 1, 1) * standard

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        standard, deviation, weight = ctx.saved_tensors
        incoming = gradients[0] * weight.view(1, -1, 1, 1)
        along = standard * (incoming * standard).mean(1, keepdim=True)
        to_x = (incoming - along - incoming.mean(1, keepdim=True)) / deviation
        return to_x, (gradients[0] * standard).sum((0, 2, 3)), None


class NewStyle(torch.autograd.Function):
    """A running sum whose context is set up apart."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is needed."""

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0].flip(1).cumsum(1).flip(1)


class Parts(torch.autograd.Function):
    """Two outputs, of which one is no number to learn from."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(True)
        largest, where = x.max(1, keepdim=True)
        ctx.save_for_backward(where)
        ctx.width = x.shape[1]
        return largest, where

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (where,) = ctx.saved_tensors
        shape = (where.shape[0], ctx.width, *where.shape[2:])
        return gradients[0].new_zeros(shape).scatter(1, where, gradients[0])


class Passed(Normed):
    """A straight-through estimator: rounded, with the gradient of what was not."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x.round() + 0 * weight.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], None, None


class Reversed(Passed):
    """A gradient that is turned around."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x.flip(1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return -gradients[0].flip(1), None, None


class Clipped(Passed):
    """A gradient that is cut off where it is large."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x.flip(1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0].flip(1).clamp(-100, 100), None, None


class Overwriting(Passed):
    """Its input is its output."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)


class Drawing(Passed):
    """Noise in the order of the channels."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x.flip(1) + torch.rand(())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0].flip(1), None, None


class Choosing(Passed):
    """A path by values."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x.flip(1) if x.sum() > 0 else x


MAPS, SCALE = torch.empty(2, 4, 3, 3, device="meta"), torch.empty(4, device="meta")


@pytest.mark.parametrize(
    ("kind", "examples", "wanted"),
    [
        (Normed, (MAPS, SCALE, 1e-6), True),
        (NewStyle, (MAPS,), True),
        (Parts, (MAPS,), True),
        *((kind, (MAPS, SCALE, 1e-6), False) for kind in (Passed, Reversed, Clipped, Overwriting, Drawing, Choosing)),
        (Normed, (MAPS.long(), SCALE, 1e-6), False),
        (Normed, (MAPS, SCALE, {"eps": 1e-6}), False),
    ],
)
def test_only_what_learns_as_its_operators_would_is_plain(kind: Any, examples: tuple[Any, ...], wanted: bool) -> None:
    state = torch.random.get_rng_state()
    assert backward_is_derivative(kind, examples, nullcontext) is wanted
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_forward_alone_is_what_the_function_puts_out() -> None:
    x, weight = torch.randn(2, 4, 3, 3), torch.rand(4)
    assert torch.equal(run_forward(Normed, (x, weight, 1e-6)), Normed.apply(x, weight, 1e-6))
    assert torch.equal(run_forward(NewStyle, (x,)), NewStyle.apply(x))


class Net(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.last, self.kind = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1), kind
        self.scale = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.relu(self.kind.apply(self.first(x), self.scale, 1e-6)))
        return result


def test_a_norm_with_a_backward_of_its_own_grows_learns_and_is_written_as_source(tmp_path: Any) -> None:
    """As NAFNet's: its axes were frozen, by a node that nothing was known of."""
    torch.manual_seed(0)
    model, x = Net(Normed).double(), torch.randn(2, 3, 5, 5).double()
    graph = gg.trace(model, x)
    assert not any(isinstance(part, OwnFunction) for part in graph.module.modules())
    for mutation in ("widen(first, extra=2)", "split(first)"):
        assert_preserved(graph, gg.apply(graph, mutation))
    gg.export_source(gg.apply(graph, "widen(first, extra=2)"), tmp_path / "source")
    found = torch.autograd.grad(graph.module(x).square().sum(), list(graph.module.parameters()))
    wanted = torch.autograd.grad(model(x).square().sum(), list(graph.module.parameters()))
    for mine, own in zip(found, wanted, strict=True):
        assert torch.allclose(mine, own, rtol=1e-9, atol=1e-12)


def test_a_reversed_gradient_stays_a_layer_with_its_backward() -> None:
    graph = gg.trace(Net(Reversed).double(), torch.randn(2, 3, 5, 5).double())
    assert sum(isinstance(part, OwnFunction) for part in graph.module.modules()) == 1
    assert "autograd function" in str(graph.group("first").frozen)
