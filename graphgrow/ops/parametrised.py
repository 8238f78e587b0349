"""Weights computed from others.

Length and direction of each row (Salimans and Kingma 2016, arXiv:1602.07868); a largest singular value of one (Miyato
et al. 2018, arXiv:1802.05957).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import StatisticKind
from graphgrow.ir.terms import product
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


@rule(_SpectralNorm)
def spectral_norm_module(call: Call, weight: Value) -> Value:
    """What torch.nn.utils.parametrizations.spectral_norm puts before a weight: W / (u W v).

    W is a matrix, one axis of the weight against all others; u and v are buffers, which steps of power iteration turn
    to its first singular vectors in train mode. Rows and columns of zero change neither these nor what they find.
    """
    module: Any = call.module
    rows = module.dim if len(weight.axes) > 1 else 0
    others = [i for i in range(len(weight.axes)) if i != rows]
    for name, terms in (("_u", (weight.axes[rows],)), ("_v", tuple(weight.axes[i] for i in others))):
        vector = call.parameter(name, Fresh.ZEROS)
        if vector is not None:  # a vector is divided by its length, which is computed anew
            call.same(vector.axes[0], product(terms))
            call.sum_over(vector, 0)
    output = call.output(weight.axes, fl.Pointwise((call.operand(weight),), zero=True))
    call.statistic(StatisticKind.SPECTRAL, weight, range(len(weight.axes)), output, inverse=True)
    return output
