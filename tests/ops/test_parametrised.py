"""Weights by length and direction: rows grow, columns of zero are added, shares of columns are declined."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm

from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares


def _function(dim: int) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        rows, columns, width = draw(2, 4), draw(2, 4), draw(1, 3)
        shape = (rows, columns, width)
        lengths = () if dim == -1 else tuple(n if i == dim else 1 for i, n in enumerate(shape))
        sources = {"x": normal_tensor(draw, *shape), "g": normal_tensor(draw, *lengths)}
        return Probe(lambda m: op(torch._weight_norm, m.x, m.g, dim), sources)

    return build


def _module(draw: Draw) -> nn.Module:
    rows, columns = draw(2, 4), draw(2, 4)
    sources = {"g": normal_tensor(draw, rows, 1), "x": normal_tensor(draw, rows, columns)}
    return Probe(lambda m: m.op(m.g, m.x), sources, {"op": _WeightNorm(0)})


ROWS = "free>free|zero mean>free|zero copy>copy|share"  # by what the lengths hold; a direction of zero is none
OTHERS = "zero>zero copy>copy"

CASES = [
    Case((torch._weight_norm,), _function(0), {"x.0": ROWS, "x.1": OTHERS, "x.2": OTHERS}, "first"),
    Case((torch._weight_norm,), _function(1), {"x.0": OTHERS, "x.1": ROWS, "x.2": OTHERS}, "second"),
    Case((torch._weight_norm,), _function(-1), {"x.0": OTHERS, "x.1": OTHERS, "x.2": OTHERS}, "whole"),
    Case((_WeightNorm,), _module, {"x.0": ROWS, "x.1": OTHERS}),
]


test_square = squares(CASES, 2)
