"""Checkpoints written by hand: what they call stands in the graph by its operators, if they do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.layers import OwnFunction
from tests.preserved import assert_preserved


class Recomputed(torch.autograd.Function):
    """Keeps the inputs of a block alone, and computes it again on the way back; parameters follow the inputs."""

    @staticmethod
    def forward(ctx: Any, block: Callable[..., torch.Tensor], count: int, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.block, ctx.inputs, ctx.parameters = block, tensors[:count], tensors[count:]
        with torch.no_grad():
            return block(*ctx.inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.inputs]
        with torch.enable_grad():
            answer = ctx.block(*(tensor.view_as(tensor) for tensor in inputs))
        wanted = (*inputs, *ctx.parameters)
        return None, None, *torch.autograd.grad(answer, wanted, gradients, allow_unused=True)


class Halved(Recomputed):
    """Its inputs get half of their gradients."""

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return Recomputed.backward(ctx, *(gradient / 2 for gradient in gradients))


class Scaled(Recomputed):
    """It answers with something else than the block does."""

    @staticmethod
    def forward(ctx: Any, block: Callable[..., torch.Tensor], count: int, *tensors: torch.Tensor) -> torch.Tensor:
        return 1.5 * Recomputed.forward(ctx, block, count, *tensors)


class Twice(Recomputed):
    """It calls the block more than once, which may not be the same for it."""

    @staticmethod
    def forward(ctx: Any, block: Callable[..., torch.Tensor], count: int, *tensors: torch.Tensor) -> torch.Tensor:
        Recomputed.forward(ctx, block, count, *tensors)
        return Recomputed.forward(ctx, block, count, *tensors)


class Block(nn.Module):
    def __init__(self, function: type[torch.autograd.Function], parameters: bool = True) -> None:
        super().__init__()
        self.first, self.time, self.last = nn.Linear(4, 6), nn.Linear(2, 6), nn.Linear(6, 4)
        self.function, self.given = function, parameters

    def inner(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.last(torch.tanh(self.first(x)) * self.time(t))
        return result

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        apply: Any = self.function.apply
        result: torch.Tensor = apply(self.inner, 2, x, t, *(self.parameters() if self.given else ()))
        return result


def _net(block: nn.Module) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.block, self.head = nn.Linear(3, 4), block, nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.block(self.stem(x), t))
            return result

    return Net().double()


INPUTS = tuple(torch.randn(5, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (3, 2))


def test_what_a_checkpoint_calls_grows() -> None:
    graph = gg.trace(_net(Block(Recomputed)), INPUTS, way="fx")
    assert not any(isinstance(module, OwnFunction) for module in graph.module.modules())
    assert graph.modes == {"train", "eval"}
    for text in ("widen(block.first, extra=2)", "widen(stem, extra=2)", "split(block.first)"):
        grown = gg.apply(graph, text)
        assert_preserved(graph, grown, batch_sizes=(None, 2))
        assert gg.verify(graph, grown).preserved


def test_its_gradients_are_those_of_the_checkpoint() -> None:
    model = _net(Block(Recomputed))
    graph = gg.trace(model, INPUTS, way="fx")
    inputs = [tensor.clone().requires_grad_() for tensor in INPUTS]
    wanted = torch.autograd.grad(model(*inputs).sum(), [*inputs, *model.parameters()])
    found = torch.autograd.grad(graph.module(*inputs).sum(), [*inputs, *model.parameters()])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", [Halved, Scaled, Twice])
def test_one_that_does_more_is_refused(function: type[torch.autograd.Function]) -> None:
    with pytest.raises(gg.CaptureError, match=f"autograd function {function.__name__} is given a method"):
        gg.trace(_net(Block(function)), INPUTS, way="fx")


def test_parameters_that_would_get_no_gradients_are_not_passed_over() -> None:
    with pytest.raises(gg.CaptureError, match="autograd function Recomputed is given a method"):
        gg.trace(_net(Block(Recomputed, parameters=False)), INPUTS, way="fx")


def test_a_block_with_two_answers_is_refused() -> None:
    class Two(Block):
        def inner(self, x: torch.Tensor, t: torch.Tensor) -> Any:
            return super().inner(x, t), t

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return super().forward(x, t)[0]

    with pytest.raises(gg.CaptureError, match="answers with more than one tensor"):
        gg.trace(_net(Two(Recomputed)), INPUTS, way="fx")
