"""Autograd functions: those that treat each entry by itself, and those that are not seen to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import Function

import graphgrow as gg
from graphgrow.layers import OwnFunction
from tests.ops.probe import Draw, Probe, normal_tensor
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
FINITE = "free>free zero>free mean>free copy>copy"
PARTIAL = "copy>copy"


class _Straight(Function):
    """A backward for all: the gradient as it comes."""

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0]


class Swish(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)


class Reversed(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)


class Spike(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return (x >= 0).to(x.dtype)


class Clamped(_Straight):
    """In the newer form, which keeps for the backward what it needs in a function of its own."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone().clamp_(-1, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)


class Logarithm(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.abs().log()


class Inverse(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 1 / x


class Third(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x / 3


class Product(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y


class BySize(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * x.shape[-1] ** -0.5


class ByMean(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.sign() * x.abs().mean(-1, keepdim=True)


class Turned(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1) + 0


class Noisy(_Straight):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Picky(_Straight):
    """Admits no other width."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != 6:
            raise ValueError("six wanted")
        return x * 2


def _of(kind: type[Function], *more: float) -> Any:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4))
        return Probe(lambda m: m.op(m.x, *more), {"x": x}, {"op": OwnFunction(kind)})

    return build


def _two(draw: Draw) -> nn.Module:
    shape = draw(2, 4), draw(2, 4)
    sources = {"x": normal_tensor(draw, *shape), "y": normal_tensor(draw, *shape)}
    return Probe(lambda m: m.op(m.x, m.y), sources, {"op": OwnFunction(Product)})


def _both(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


CASES = [
    Case((OwnFunction,), _of(Swish), _both(ZERO_KEEPING), "swish"),
    Case((OwnFunction,), _of(Reversed), _both(LINEAR), "reversed"),
    Case((OwnFunction,), _of(Spike), _both(FINITE), "spike"),
    Case((OwnFunction,), _of(Clamped), _both(ZERO_KEEPING), "clamped"),
    Case((OwnFunction,), _of(Logarithm), _both(PARTIAL), "logarithm"),
    Case((OwnFunction,), _of(Inverse), _both(PARTIAL), "inverse"),
    Case((OwnFunction,), _of(Third), _both(ZERO_KEEPING), "third"),
    Case((OwnFunction,), _two, _both("free>free zero>zero|free mean>free copy>copy"), "product"),
    *(Case((OwnFunction,), _of(kind), {}, kind.__name__) for kind in (BySize, ByMean, Noisy)),
]

test_square = squares(CASES, 2)


class Net(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.last, self.kind = nn.Linear(3, 6), nn.Linear(6, 2), kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.kind.apply(self.first(x)))


@pytest.mark.parametrize("kind", [BySize, ByMean, Noisy, Turned, Picky])
def test_what_may_mix_entries_is_frozen_with_the_reason(kind: Any) -> None:
    """A square of 6 by 6: a transposition would keep the shape."""
    graph = gg.trace(Net(kind).eval(), torch.randn(6, 3))
    frozen = graph.group("first").frozen
    assert f"{kind.__name__} is an autograd function, and not seen to treat each entry by itself" in str(frozen)


def test_the_backward_is_the_functions_own_at_the_grown_width() -> None:
    """Rows that were there before get the gradients that they had: the straight-through one, not a sigmoid's."""
    torch.manual_seed(0)
    model, x = Net(Swish).double(), torch.randn(5, 3, dtype=torch.float64)
    graph = gg.trace(model, x)
    grown = gg.apply(graph, ["split(first)", "widen(first, extra=3)"])
    weight = model.last.weight.detach()
    hidden = model.first(x).detach()
    answer = model.last(hidden * torch.sigmoid(hidden))
    gradient = (2 * answer @ weight).T @ x  # of the squared answer, passed on by the backward as it is
    grown.module(x).square().sum().backward()
    first = dict(grown.module.named_parameters())["first.weight"].grad
    assert first is not None
    shares = first[:6] + first[6:12]
    torch.testing.assert_close(shares, gradient)
