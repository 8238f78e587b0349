"""Magnitudes, signs and angles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
FINITE = "free>free zero>free mean>free copy>copy"


def _pair(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        sizes = draw(2, 4), draw(2, 4)
        return Probe(lambda m: op(target, m.x, m.y), {name: normal_tensor(draw, *sizes) for name in "xy"})

    return build


def _number(target: Any, number: float) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(lambda m: op(target, m.x, number), {"x": normal_tensor(draw, draw(2, 4), 3)})


def _both(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


CASES = [
    *(Case((target,), _pair(target), _both(ZERO_KEEPING))
      for target in (torch.copysign, "copysign")),
    Case((torch.copysign,), _number(torch.copysign, -1.5), _both(ZERO_KEEPING), "of-a-number"),
    *(Case((target,), _pair(target), _both("free>free mean>free copy>copy"))
      for target in (torch.hypot, "hypot", torch.atan2, "atan2")),
    *(Case((target,), _pair(target), _both(FINITE)) for target in (torch.heaviside, "heaviside")),
    *(Case((target,), _pair(target), _both("free>free zero>zero mean>free copy>copy share>share"))
      for target in (torch.ldexp, "ldexp")),
]  # fmt: skip


test_square = squares(CASES, 2)
