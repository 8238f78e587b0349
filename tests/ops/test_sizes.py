"""Sizes that a graph reads off its tensors and uses again: they must follow, or what they touch must not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.ops.probe import Draw, Probe, normal_tensor
from tests.ops.square import Case
from tests.ops.squares import squares

LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
PART = "free>free zero>zero mean>mean copy>copy share>share"


def _run(run: Callable[[Any], Any], *shape: int) -> Callable[[Draw], nn.Module]:
    return lambda draw: Probe(run, {"x": normal_tensor(draw, *shape)})


def _all(table: str, *axes: int) -> dict[str, str]:
    return {f"x.{axis}": table for axis in axes}


CASES = [
    Case(("view",), _run(lambda m: m.x.view(m.x.shape[0], m.x.shape[1] * m.x.shape[2]), 2, 3, 4),
         _all(LINEAR, 0, 1, 2), "shape"),
    Case(("view",), _run(lambda m: m.x.view(m.x.size(0), -1), 2, 3, 4), _all(LINEAR, 0, 1, 2), "size"),
    Case(("reshape",), _run(lambda m: m.x.reshape(m.x.size()[0], 2, m.x.size(1) // 2), 2, 6),
         {"x.0": LINEAR, "x.1:0": PART, "x.1:1": PART}, "quotient"),
    Case(("reshape",), _run(lambda m: m.x.tanh().reshape(*m.x.shape[:1], -1), 2, 3, 2),
         _all("free>free zero>zero mean>free copy>copy", 0, 1, 2), "slice-of-a-shape"),
    Case((getattr,), _run(lambda m: m.x.T, 2, 3), _all(LINEAR, 0, 1), "T"),
    Case((getattr,), _run(lambda m: m.x.mT, 2, 3, 4), _all(LINEAR, 0, 1, 2), "mT"),
    Case((getattr,), _run(lambda m: m.x.H, 2, 3), _all(LINEAR, 0, 1), "H"),
    Case(("mul",), _run(lambda m: m.x.mul(m.x.shape[-1] ** -0.5), 2, 3), _all(LINEAR, 0, 1), "scale"),
    Case(("mul",), _run(lambda m: m.x.mul(torch.tensor(m.x.shape[-1], dtype=torch.float64)), 2, 3),
         _all(LINEAR, 0, 1), "scale-in-a-tensor"),
    Case(("mul",), _run(lambda m: m.x.mul(torch.as_tensor(m.x.shape[-1] ** -0.5, dtype=torch.float64)), 2, 3),
         _all(LINEAR, 0, 1), "scale-as-a-tensor"),
    Case((torch.tensor,), _run(lambda m: m.x.mul(torch.tensor([m.x.shape[0], 0.5]).prod()), 2, 3), {}),
    Case(("mul",), _run(lambda m: m.x.mul(m.x.numel()), 2, 3), _all(LINEAR, 0, 1), "numel"),
    Case(("view",), _run(lambda m: m.x.view(m.x.numel() // 2, 2), 3, 2), _all(LINEAR, 0, 1), "quotient-of-all"),
    Case(("mul",), _run(lambda m: m.x.mul(m.x.dim()), 2, 3), _all(LINEAR, 0, 1), "dim"),
    Case(("add",), _run(lambda m: m.x.add(torch.zeros(m.x.shape[1], dtype=torch.float64)), 2, 3),
         {"x.0": "free>free zero>free mean>mean copy>copy", "x.1": LINEAR}, "new-tensor"),
]  # fmt: skip


test_square = squares(CASES, 4)
