"""Weights computed from others: length and direction of each row (Salimans and Kingma 2016, arXiv:1602.07868)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.parametrizations import _WeightNorm

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import StatisticKind
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule


@rule(torch._weight_norm)
def weight_norm(call: Call, v: Value, g: Value, dim: int = 0) -> Value:
    """W = g v / |v|, the norm over all axes but `dim` (over all, if that is -1): (O, ...) and (O, 1, ...) -> (O, ...).

    A row with a direction of zero has none, but one of length zero is zero. Along the other axes new entries of zero
    change no norm.
    """
    call.starts(v, Fresh.HE, fan=tuple(i for i in range(len(v.axes)) if i != dim))
    call.starts(g, Fresh.ONES)
    rows = [] if dim == -1 else [dim]
    for axis in rows:
        call.same(v.axes[axis], g.axes[axis])
    others = [i for i in range(len(v.axes)) if i not in rows]
    call.freeze((term for i, term in enumerate(g.axes) if i not in rows), "a single length for each row")
    length = call.operand(g, drop=[i for i in range(len(g.axes)) if i not in rows])
    direction = fl.Pointwise((call.operand(v),), constant_safe=False)
    scaled = fl.Mul((length, call.operand(v)))
    terms = tuple(v.axes[axis] for axis in rows)
    output = call.output(v.axes, fl.Along(terms, fl.Mul((length, direction)), scaled))
    call.statistic(StatisticKind.NORM, v, others, output, 2.0, inverse=True)
    return output


@rule(_WeightNorm)
def weight_norm_module(call: Call, weight_g: Value, weight_v: Value) -> Value:
    """What torch.nn.utils.parametrizations.weight_norm puts before a weight."""
    module: Any = call.module
    return weight_norm(call, weight_v, weight_g, module.dim)
