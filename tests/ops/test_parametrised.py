"""Weights by length and direction: rows grow, columns of zero are added, shares of columns are declined."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm

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


def _spectral(dim: int, *shape: int) -> Callable[[Draw], nn.Module]:
    """The vectors are few steps away from the weight's own, so that they are seen to turn in train mode."""

    def build(draw: Draw) -> nn.Module:
        weight = normal_tensor(draw, *(draw(2, 3) for _ in shape))
        parametrisation = _SpectralNorm(weight.data, dim=dim, n_power_iterations=2)
        return Probe(lambda m: m.op(m.x), {"x": weight}, {"op": parametrisation})

    return build


ROWS = "free>free|zero mean>free|zero copy>copy|share"  # by what the lengths hold; a direction of zero is none
OTHERS = "zero>zero copy>copy"

CASES = [
    Case((torch._weight_norm,), _function(0), {"x.0": ROWS, "x.1": OTHERS, "x.2": OTHERS}, "first"),
    Case((torch._weight_norm,), _function(1), {"x.0": OTHERS, "x.1": ROWS, "x.2": OTHERS}, "second"),
    Case((torch._weight_norm,), _function(-1), {"x.0": OTHERS, "x.1": OTHERS, "x.2": OTHERS}, "whole"),
    Case((_WeightNorm,), _module, {"x.0": ROWS, "x.1": OTHERS}),
    Case((_SpectralNorm,), _spectral(0, 2, 2), {"x.0": "zero>zero", "x.1": "zero>zero"}),
    Case((_SpectralNorm,), _spectral(1, 2, 2, 2), dict.fromkeys(("x.0", "x.1", "x.2"), "zero>zero"), "second"),
    Case((_SpectralNorm,), _spectral(0, 2), {"x.0": "zero>zero"}, "vector"),
]


test_square = squares(CASES, 2)
