"""Dropout and stochastic depth: nothing in eval mode; in train mode a mask for each unit, or one for all."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.ops.noise import drops_rows
from graphgrow.rulecheck.square import Square
from graphgrow.store.names import import_torchvision
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

import_torchvision()
StochasticDepth = importlib.import_module("torchvision.ops").StochasticDepth


class MyDropPath(nn.Module):
    """Stochastic depth as many libraries write it anew."""

    def __init__(self, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> the same."""
        if self.drop_prob == 0.0 or not self.training:
            return x
        kept = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype) >= self.drop_prob
        return x.div(1 - self.drop_prob) * kept


class NoisyDropPath(MyDropPath):
    """Drops elements, whatever its name says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> the same."""
        return F.dropout(x, self.drop_prob, self.training)


class ScalingDropPath(MyDropPath):
    """Is no identity in eval mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> the same."""
        return super().forward(x) * (1 - self.drop_prob)


class BiasedDropPath(MyDropPath):
    """Adds what it holds."""

    def __init__(self, drop_prob: float = 0.5) -> None:
        super().__init__(drop_prob)
        self.bias = nn.Parameter(torch.zeros(()))


class DropPathOf(MyDropPath):
    """Wants more than one input."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(n, ...) -> the same."""
        return super().forward(x) + residual


class RandomSigns(MyDropPath):
    """Scales rows, and is called otherwise."""


class DropPathOfImages(MyDropPath):
    """Takes four axes alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) -> the same."""
        n, _, _, _ = x.shape
        return x if n < 0 else super().forward(x)


class UnevenDropPath(MyDropPath):
    """Scales each row by a number of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> the same."""
        return x * torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype) if self.training else x


LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
FINITE = "free>free zero>free mean>free copy>copy"
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"

DROPOUTS: list[Any] = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d]
ALPHA: list[Any] = [nn.AlphaDropout, nn.FeatureAlphaDropout]
FUNCTIONS: list[Any] = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout]


def _rank(target: Any) -> int:
    name = target.__name__
    return int(name[-2]) if name.endswith("d") else 1


def _module(kind: Any, *arguments: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, 2, 3, *[2] * _rank(kind))
        return Probe(lambda m: m.op(m.x), {"x": x}, {"op": kind(*arguments)})

    return build


def _function(target: Any, training: bool) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, 2, 3, *[2] * _rank(target))
        return Probe(lambda m: op(target, m.x, *((0.1, 0.5) if target is F.rrelu else (0.5,)), training), {"x": x})

    return build


def _axes(kind: Any, table: str) -> dict[str, str]:
    return {f"x.{i}": table for i in range(2 + _rank(kind))}


CASES = [
    *(Case((kind,), _module(kind, 0.5), _axes(kind, LINEAR)) for kind in DROPOUTS),
    *(Case((kind,), _module(kind, 0.0), _axes(kind, LINEAR), "off") for kind in DROPOUTS),
    *(Case((kind,), _module(kind, 0.5), _axes(kind, FINITE)) for kind in ALPHA),
    *(Case((target,), _function(target, False), _axes(target, LINEAR)) for target in FUNCTIONS),
    *(Case((target,), _function(target, False), _axes(target, FINITE))
      for target in (F.alpha_dropout, F.feature_alpha_dropout)),
    Case((F.rrelu,), _function(F.rrelu, False), _axes(F.rrelu, ZERO_KEEPING)),
    Case((StochasticDepth, "torchvision.ops.stochastic_depth.StochasticDepth"), _module(StochasticDepth, 0.5, "batch"),
         {f"x.{i}": LINEAR for i in range(3)}),
    Case((StochasticDepth, "torchvision.ops.stochastic_depth.StochasticDepth"), _module(StochasticDepth, 0.5, "row"),
         {f"x.{i}": LINEAR for i in (1, 2)}, "row"),
    Case((drops_rows,), _module(MyDropPath, 0.5), {f"x.{i}": LINEAR for i in (1, 2)}),
]  # fmt: skip


test_square = squares(CASES, 4)


@pytest.mark.parametrize("kind", [*DROPOUTS, *ALPHA, nn.RReLU])
def test_noise_of_its_own_for_each_unit_is_stated(kind: Any) -> None:
    build = _module(nn.RReLU) if kind is nn.RReLU else _module(kind, 0.25)
    assert Square.of(build(lambda low, high: low), (kind,)).facts.noises


def test_a_rate_of_zero_is_no_noise() -> None:
    assert not Square.of(_module(nn.Dropout, 0.0)(lambda low, high: low), (nn.Dropout,)).facts.noises


@pytest.mark.parametrize("target", [F.dropout, F.alpha_dropout, F.feature_alpha_dropout, F.rrelu])
@pytest.mark.parametrize("training", [False, True])
def test_functional_noise_is_noise_where_its_mode_is_fixed_to_train(target: Any, training: bool) -> None:
    square = Square.of(_function(target, training)(lambda low, high: low), (target,))
    assert bool(square.facts.noises) is training


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_stochastic_depth_is_known_by_what_it_does(rate: float) -> None:
    before = torch.get_rng_state()
    assert drops_rows(MyDropPath(rate))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "kind", [NoisyDropPath, ScalingDropPath, BiasedDropPath, DropPathOf, RandomSigns, DropPathOfImages, UnevenDropPath]
)
def test_what_only_looks_like_stochastic_depth_is_traced_into(kind: type[MyDropPath]) -> None:
    assert not drops_rows(kind(0.25))


class _AlwaysOn(nn.Module):
    """`F.dropout(h, 0.5)`, whose flag is True where none is given: a slip of users that drops in eval mode too."""

    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.attends = attends
        self.block = nn.Module()
        self.block.up, self.block.down = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.block.up(x).relu()
        if self.attends:
            h = F.scaled_dot_product_attention(x, x, h, dropout_p=0.25)
        else:
            h = F.dropout(h, 0.5)
        result: torch.Tensor = self.head(self.block.down(h))
        return result


@pytest.mark.parametrize("attends", [False, True])
def test_copies_are_not_dropped_apart_in_eval_mode(attends: bool) -> None:
    torch.manual_seed(0)
    graph = gg.trace(_AlwaysOn(attends).eval(), torch.randn(2, 5, 4))
    with pytest.raises(gg.Declined, match="in eval mode too"):
        gg.apply(graph, "split(block.up)")
    assert "split(block.up)" not in map(str, graph.mutations("split"))
    assert gg.apply(graph, "widen(block.up, extra=2)").ledger  # what is dropped there is read with zero


def test_experts_do_not_drop_apart_in_eval_mode() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.down(F.dropout(F.gelu(self.up(x)), 0.5))
            return result

    graph = gg.trace(nn.Sequential(nn.Linear(3, 4), Block(), nn.Linear(4, 2)).eval(), torch.randn(5, 3))
    with pytest.raises(gg.Declined, match="each expert would drop its own"):
        gg.apply(graph, "upcycle-experts(1)")
