"""Sums, means, statistics and softmax along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.effort import examples
from tests.ops.probe import Draw, Probe, drawer, normal_tensor, op
from tests.ops.square import Case

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
FINITE = "free>free zero>free mean>free copy>copy"
SUMMED = "zero>- share>-"  # a sum sees every unit: new ones must be zero, copies must be shares

SOFTMAX: list[Any] = [
    F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax",
]  # fmt: skip
STATISTICS: list[Any] = [torch.amax, torch.amin, "amax", "amin", torch.var, torch.std, "var", "std"]


def _along(target: Any, *arguments: Any, **options: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4), draw(2, 4))
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(*arguments, **options)})
        return Probe(lambda m: op(target, m.x, *arguments, **options), {"x": x})

    return build


def _square_norm(draw: Draw) -> nn.Module:
    """The second argument of a norm is its power, not an axis; equal sizes cannot give that away."""
    return Probe(lambda m: op("norm", m.x, 2, 1), {"x": normal_tensor(draw, 2, 3, 3)})


def _but(axis: int, table: str) -> dict[str, str]:
    return {f"x.{i}": table for i in range(3) if i != axis}


CASES = [
    *(Case((target,), _along(target, 1), _but(1, LINEAR)) for target in (torch.mean, "mean")),
    Case((torch.mean,), _along(torch.mean, (0, -1), True), {"x.1": LINEAR}, "keepdim"),
    Case((torch.mean,), _along(torch.mean), {}, "all"),
    *(Case((target,), _along(target, 1), {**_but(1, LINEAR), "x.1": SUMMED}) for target in (torch.sum, "sum")),
    Case((torch.sum,), _along(torch.sum, dim=(0, 1), keepdim=True), {"x.0": SUMMED, "x.1": SUMMED, "x.2": LINEAR},
         "keepdim"),
    Case((torch.sum,), _along(torch.sum), {f"x.{i}": SUMMED for i in range(3)}, "all"),
    *(Case((target,), _along(target, 1), _but(1, FINITE)) for target in STATISTICS),
    Case((torch.amax,), _along(torch.amax, 1, keepdim=True), _but(1, FINITE), "keepdim"),
    Case((torch.amax,), _along(torch.amax, 1, True), {}, "keepdim-by-position"),
    *(Case((target,), _along(target, 2, 1), _but(1, FINITE)) for target in (torch.norm, "norm")),
    Case(("norm",), _square_norm, _but(1, FINITE), "equal-sizes"),
    *(Case((target,), _along(target, dim=1), _but(1, FINITE)) for target in SOFTMAX),
    *(Case((kind,), _along(kind, dim=-1), _but(2, FINITE)) for kind in (nn.Softmax, nn.LogSoftmax, nn.Softmin)),
    *(Case((target,), _along(target, 1), _but(1, FINITE))
      for target in (torch.cumsum, "cumsum", torch.cumprod, "cumprod")),
    *(Case((target,), _along(target, (0, 2)), {"x.1": FINITE}) for target in (torch.flip, "flip")),
    Case((torch.flip,), _along(torch.flip, dims=(1,)), _but(1, FINITE), "by-name"),
    Case((F.softmax,), _along(F.softmax), _but(0, FINITE), "implicit-axis"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@examples(4)
@given(data=st.data())
def test_square(case: Case, data: st.DataObject) -> None:
    case.check(drawer(data))
