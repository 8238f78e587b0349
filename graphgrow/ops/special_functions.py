"""Special functions of each unit alone: of the gamma family, of the normal distribution, Bessel functions."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.bounding import bounds_of
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, plain
from graphgrow.ops.registry import rule


@rule(torch.special.ndtr, torch.special.log_ndtr, torch.special.i0e)
def bounded(call: Call, input: Value) -> Value:
    """Finite everywhere, not zero at zero."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(torch.special.i1e)
def zero_keeping(call: Call, input: Value) -> Value:
    """f(0) = 0, finite everywhere."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))


@rule(torch.i0, "i0", torch.special.i0, torch.special.erfcx)
def growing(call: Call, input: Value) -> Value:
    """1 at zero, and finite near it, but not everywhere: these grow as exponentials do."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), total=False, total_at_zero=True))


@rule(torch.special.i1, torch.erfinv, "erfinv")
def growing_from_zero(call: Call, input: Value) -> Value:
    """f(0) = 0; finite near zero, but not everywhere."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True, total=False, total_at_zero=True))


@rule(torch.lgamma, "lgamma", torch.digamma, "digamma", torch.special.entr)
def of_positive(call: Call, input: Value) -> Value:
    """Finite for positive numbers, with a pole, or a slope that has one, at zero."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), total=input.bounds.low > 0))


@rule(torch.polygamma, torch.special.polygamma)
def polygamma(call: Call, n: int, input: Value) -> Value:
    """A derivative of digamma."""
    return of_positive(call, input)


@rule("polygamma", torch.mvlgamma, "mvlgamma")
def of_order(call: Call, input: Value, order: int = 1, *, p: int = 1) -> Value:
    """A derivative of digamma; a sum of log gammas, whose arguments are smaller by up to half the order."""
    least = 0.0 if call.name == "polygamma" else (max(order, p) - 1) / 2
    return call.output(input.axes, fl.Pointwise((call.operand(input),), total=input.bounds.low > least))


@rule(torch.special.ndtri)
def quantile_of_normal(call: Call, input: Value) -> Value:
    """Finite between 0 and 1."""
    total = input.bounds.low > 0 and input.bounds.high < 1
    return call.output(input.axes, fl.Pointwise((call.operand(input),), total=total))


@rule(torch.logit, "logit", torch.special.logit)
def logit(call: Call, input: Value, eps: float | None = None) -> Value:
    """Finite between 0 and 1; with an eps above 0 what is given is clamped to lie there."""
    if eps is not None and bounds_of(eps).low > 0:
        return call.output(input.axes, fl.Pointwise((call.operand(input),)))
    return quantile_of_normal(call, input)


@rule(torch.xlogy, "xlogy", torch.special.xlog1py)
def times_logarithm(call: Call, input: Any, other: Any) -> Value:
    """Linear in the first, by the logarithm of the second, or of 1 more."""
    operands = [value for value in (input, other) if isinstance(value, Value)]
    pole = -1 if call.name == "special_xlog1py" else 0
    factors: list[fl.Flow] = [call.operand(input)] if isinstance(input, Value) else []
    if isinstance(other, Value):
        factors.append(fl.Pointwise((call.operand(other),), total=bounds_of(plain(other)).low > pole))
    return call.output(align(call, [value.axes for value in operands]), fl.Mul(tuple(factors)))
