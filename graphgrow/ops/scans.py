"""Along an axis whose order counts: cumulated, turned round, differences and integrals; all else is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, RuleDeclined, meta_shape
from graphgrow.ops.registry import rule

_ORDERED = "an axis whose order counts"


@rule(torch.cumsum, "cumsum", torch.diff, "diff", torch.cumulative_trapezoid)
def accumulated(call: Call, input: Value, *arguments: Any, dim: Any = None, **options: Any) -> Value:
    """Sums of what came before, or differences of neighbours; `diff` has its order in front of its axis."""
    if any(isinstance(value, Value) for value in (*arguments, *options.values())):
        raise RuleDeclined("what is put in front, behind or in between is a tensor")
    if dim is None:
        numbers = arguments[1:] if call.name == "diff" else arguments
        dim = numbers[0] if numbers else -1
    return _ordered(call, input, [dim])


@rule(torch.trapezoid, torch.trapz)
def integral(call: Call, y: Value, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Value:
    """A weighted sum of all positions of an axis, at equal distances."""
    if isinstance(x, Value):
        raise RuleDeclined("places that are a tensor")
    at = call.axis(y, dim)
    call.freeze([y.axes[at]], _ORDERED)
    return call.output((*y.axes[:at], *y.axes[at + 1 :]), fl.Same(call.operand(y, drop=[at])))


@rule(torch.cumprod, "cumprod", torch.logcumsumexp, "logcumsumexp")
def accumulated_otherwise(call: Call, input: Value, dim: int, *, dtype: Any = None) -> Value:
    """Products, or logarithms of sums of exponentials, of what came before."""
    call.freeze([input.axes[call.axis(input, dim)]], _ORDERED)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=call.name == "cumprod"))


@rule(torch.flip, "flip")
def turned_round(call: Call, input: Value, dims: Any = None, *more: int) -> Value:
    """Positions from the last to the first; `x.flip(1, 2)` names its axes one by one."""
    return _ordered(call, input, dims if isinstance(dims, (tuple, list)) else (dims, *more))


@rule(torch.flipud, "flipud", torch.fliplr, "fliplr")
def turned_upside_down(call: Call, input: Value) -> Value:
    """Positions of the first axis, or of the second, from the last to the first."""
    return _ordered(call, input, [0 if call.name == "flipud" else 1])


@rule(torch.rot90, "rot90")
def turned_by_quarters(call: Call, input: Value, k: int = 1, dims: Sequence[int] = (0, 1)) -> Value:
    """A plane of two axes, turned."""
    return _ordered(call, input, dims)


def _ordered(call: Call, input: Value, dims: Sequence[int]) -> Value:
    """A linear map along some axes, which leaves the others alone."""
    along = {call.axis(input, dim) for dim in dims}
    call.freeze((input.axes[i] for i in along), _ORDERED)
    sizes = meta_shape(call.meta)
    axes: list[Term] = list(input.axes)
    for i in along:
        if sizes[i] != axes[i].size:
            axes[i] = call.fixed(sizes[i], _ORDERED)
    return call.output(axes, fl.Same(call.operand(input, drop=along)))
