"""Sums, means, statistics and softmax along axes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
FINITE = "free>free zero>free mean>free copy>copy"
SUMMED = "zero>- share>-"  # a sum sees every unit: new ones must be zero, copies must be shares

SOFTMAX: list[Any] = [
    F.softmax, F.log_softmax, F.softmin, torch.softmax, torch.log_softmax, "softmax", "log_softmax",
]  # fmt: skip
AVERAGED = "zero>- mean>- copy>- share>-"  # what is off is a factor, which the output is multiplied by
SPREAD = "mean>- copy>-"
LARGEST = "copy>-"
PLACED = "free>free zero>free,zero mean>free copy>copy"  # the largest, and where it lay
LENGTH = "zero>- copy>-"
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
EXTREMES: list[Any] = [torch.amax, torch.amin, "amax", "amin"]
SPREADS: list[Any] = [torch.var, torch.std, "var", "std", torch.var_mean, torch.std_mean]
NORMS: list[Any] = [torch.norm, "norm", torch.linalg.norm, torch.linalg.vector_norm]
OF_ALL: list[Any] = [torch.prod, "prod", torch.logsumexp, "logsumexp", torch.median, "median",
                     torch.nanmedian, "nanmedian", torch.nanmean, "nanmean", torch.count_nonzero, "count_nonzero",
                     torch.mode, "mode"]  # fmt: skip


def _along(target: Any, *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4), draw(2, 4))
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(*arguments, **options)})
        return Probe(lambda m: op(target, m.x, *arguments, **options), {"x": x})

    return build


def _values(target: Any) -> Callable[[Draw], nn.Module]:
    """The largest or smallest alone: where they lay would be other places among copies."""
    return lambda draw: Probe(lambda m: op(target, m.x, 1)[0], {"x": normal_tensor(draw, 2, 3, 4)})


def _by_name(draw: Draw) -> nn.Module:
    return Probe(lambda m: torch.max(m.x, 1).values, {"x": normal_tensor(draw, 2, 3, 4)})


def _square_norm(draw: Draw) -> nn.Module:
    """The second argument of a norm is its power, not an axis; equal sizes cannot give that away."""
    return Probe(lambda m: op("norm", m.x, 2, 1), {"x": normal_tensor(draw, 2, 3, 3)})


def _but(axis: int, table: str) -> dict[str, str]:
    return {f"x.{i}": table for i in range(3) if i != axis}


PAIR = "free>free zero>free,zero mean>free,mean copy>copy"
TWO = "free>free zero>free|zero mean>free copy>copy"


def _two(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        a, b = draw(2, 4), draw(2, 4)
        return Probe(lambda m: op(target, m.x, m.y), {"x": normal_tensor(draw, a, b), "y": normal_tensor(draw, a, b)})

    return build


def _flags(target: Any) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(target, m.x > 0, 1), {"x": normal_tensor(draw, 2, 3, 4)})


def _centred(draw: Draw) -> nn.Module:
    return Probe(lambda m: m.x - m.x.mean(1, keepdim=True), {"x": normal_tensor(draw, 2, 4)})


def _centred_by_pair(draw: Draw) -> nn.Module:
    """A layer norm spelled out, up to its division."""

    def run(m: Any) -> Any:
        _, mean = torch.var_mean(m.x, dim=1, keepdim=True)
        return op(torch.sub, m.x, mean)

    return Probe(run, {"x": normal_tensor(draw, 2, 4)})


REACHES_NOTHING = "free>- zero>- mean>- copy>-"


def _of_kind(kind: Any, of_all: Any) -> Callable[[Draw], nn.Module]:
    """Whether any, or all, along the second axis are of a kind."""

    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4), draw(2, 4))
        return Probe(lambda m: op(of_all, kind(m.x), 1).double(), {"x": x})

    return build


CASES = [
    *(Case((target,), _along(target, 1), {**_but(1, LINEAR), "x.1": AVERAGED}) for target in (torch.mean, "mean")),
    Case((torch.mean,), _along(torch.mean, (0, -1), True), {"x.0": AVERAGED, "x.1": LINEAR, "x.2": AVERAGED},
         "keepdim"),
    Case((torch.mean,), _along(torch.mean), {f"x.{i}": AVERAGED for i in range(3)}, "all"),
    *(Case((target,), _along(target, 1), {**_but(1, LINEAR), "x.1": SUMMED})
      for target in (torch.sum, "sum", torch.nansum, "nansum")),
    Case((torch.sum,), _along(torch.sum, dim=(0, 1), keepdim=True), {"x.0": SUMMED, "x.1": SUMMED, "x.2": LINEAR},
         "keepdim"),
    Case((torch.sum,), _along(torch.sum), {f"x.{i}": SUMMED for i in range(3)}, "all"),
    *(Case((target,), _along(target, 1), {**_but(1, ZERO_KEEPING), "x.1": LARGEST}) for target in EXTREMES),
    Case((torch.amax,), _along(torch.amax, 1, keepdim=True), {**_but(1, ZERO_KEEPING), "x.1": LARGEST}, "keepdim"),
    Case((torch.amax,), _along(torch.amax, 1, True), {**_but(1, ZERO_KEEPING), "x.1": LARGEST}, "keepdim-by-position"),
    *(Case((target,), _values(target), {**_but(1, PLACED), "x.1": LARGEST}, "values")
      for target in (torch.max, torch.min, "max", "min")),
    Case((torch.max,), _by_name, {**_but(1, PLACED), "x.1": LARGEST}, "values-by-name"),
    Case((torch.max,), _along(torch.max, 1), _but(1, PLACED), "and-places"),
    Case((torch.max,), _along(torch.max), {f"x.{i}": LARGEST for i in range(3)}, "all"),
    Case((torch.max,), _two(torch.max), {"x.0": TWO, "x.1": TWO}, "of-two"),
    *(Case((target,), _along(target, 1), {**_but(1, FINITE), "x.1": SPREAD}) for target in SPREADS[:4]),
    *(Case((target,), _along(target, 1), {**_but(1, PAIR), "x.1": SPREAD}) for target in SPREADS[4:]),
    Case((torch.var,), _along(torch.var, 1, False), {**_but(1, FINITE), "x.1": SPREAD}, "biased"),
    Case((torch.var,), _along(torch.var, False), {f"x.{i}": LARGEST for i in range(3)}, "biased-by-position"),
    Case((torch.std,), _along(torch.std, (0, 1), correction=0), {"x.0": LARGEST, "x.1": LARGEST, "x.2": FINITE}, "two"),
    *(Case((target,), _along(target, 2, 1), {**_but(1, ZERO_KEEPING), "x.1": LENGTH}) for target in NORMS),
    Case((torch.norm,), _along(torch.norm, 3.0, -1), {**_but(2, ZERO_KEEPING), "x.2": LENGTH}, "cubes"),
    Case((torch.linalg.vector_norm,), _along(torch.linalg.vector_norm, ord=float("inf"), dim=0),
         {**_but(0, ZERO_KEEPING), "x.0": LENGTH}, "largest"),
    Case((torch.norm,), _along(torch.norm, -1, 1), _but(1, ZERO_KEEPING), "negative"),
    Case((torch.linalg.norm,), _along(torch.linalg.norm, dim=(1, 2)), {"x.0": ZERO_KEEPING}, "of-a-matrix"),
    Case(("norm",), _square_norm, {**_but(1, ZERO_KEEPING), "x.1": LENGTH}, "equal-sizes"),
    *(Case((target,), _along(target, 1), _but(1, FINITE)) for target in OF_ALL),
    *(Case((target,), _flags(target), _but(1, FINITE)) for target in (torch.all, torch.any, "all", "any")),
    *(Case((of_all,), _of_kind(kind, of_all), dict.fromkeys(("x.0", "x.1", "x.2"), FINITE) | {"x.1": REACHES_NOTHING},
           kind.__name__)
      for of_all, kind in ((torch.any, torch.isnan), (torch.any, torch.isinf), (torch.all, torch.isfinite))),
    Case((torch.any,), _of_kind(torch.isfinite, torch.any), _but(1, FINITE), "isfinite"),
    Case((torch.all,), _of_kind(torch.isnan, torch.all), _but(1, FINITE), "isnan"),
    Case((operator.sub,), _centred, {"x.0": LINEAR,
                                     "x.1": "zero>free mean>zero copy>copy"}, "its-mean"),
    Case((torch.sub,), _centred_by_pair, {"x.0": "free>free zero>zero mean>mean copy>copy",
                                          "x.1": "mean>zero copy>copy"}, "mean-of-a-pair"),
    *(Case((target,), _along(target, dim=1), _but(1, FINITE)) for target in SOFTMAX),
    *(Case((kind,), _along(kind, dim=-1), _but(2, FINITE)) for kind in (nn.Softmax, nn.LogSoftmax, nn.Softmin)),
    Case((nn.Softmax2d,), _along(nn.Softmax2d), _but(0, FINITE)),
    *(Case((target,), _along(target, 0.3, 1), _but(1, FINITE))
      for target in (torch.quantile, "quantile", torch.nanquantile, "nanquantile")),
    Case((torch.quantile,), _along(torch.quantile, torch.tensor([0.1, 0.5]).double(), 1), _but(1, FINITE), "several"),
    *(Case((target,), _along(target, dim=1), {**_but(1, ZERO_KEEPING), "x.1": LARGEST})
      for target in (torch.aminmax, "aminmax")),
    Case((F.softmax,), _along(F.softmax), _but(0, FINITE), "implicit-axis"),
]  # fmt: skip


test_square = squares(CASES, 2)


class _Counted(nn.Module):
    """Rows of a parameter in front of those of the input, and a number that counts both."""

    def __init__(self, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.prompt, self.run = nn.Parameter(torch.randn(4, 4)), run
        self.read = nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([self.prompt.expand(x.size(0), -1, -1), x], 1)
        result: torch.Tensor = self.run(self, rows)
        return result


@pytest.mark.parametrize(
    "run",
    [
        lambda m, rows: m.read(rows).mean(1),
        lambda m, rows: m.read(rows).var(1, unbiased=False),
    ],
    ids=["mean", "variance"],
)
def test_what_counts_an_input_too_holds_for_other_lengths(run: Callable[[Any, Any], Any]) -> None:
    torch.manual_seed(0)
    model = _Counted(run).double()
    graph = gg.trace(model, torch.randn(2, 5, 4, dtype=torch.float64))
    for growth in [*graph.mutations("widen"), *graph.mutations("split")]:
        grown = gg.apply(graph, growth).module
        for length in (2, 5, 9):
            x = torch.randn(2, length, 4, dtype=torch.float64)
            torch.testing.assert_close(grown(x), model(x), rtol=1e-12, atol=1e-12)
