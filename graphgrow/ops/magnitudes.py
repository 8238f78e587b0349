"""Magnitudes, signs and angles of numbers and of pairs of them."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule


@rule(torch.copysign, "copysign")
def with_sign_of(call: Call, input: Value, other: Any) -> Value:
    """The magnitude of the one with the sign of the other; zero where the magnitude is."""
    magnitude = fl.Pointwise((call.operand(input),), zero=True, flat=True)
    if not isinstance(other, Value):
        return call.output(input.axes, magnitude)
    sign = fl.Pointwise((call.operand(other),))
    return call.output(align(call, [input.axes, other.axes]), fl.Mul((magnitude, sign)))


@rule(torch.hypot, "hypot", torch.atan2, "atan2")
def of_point(call: Call, input: Value, other: Value) -> Value:
    """Length and angle of a point of the plane: zero at the origin, where neither has a slope."""
    flow = fl.Pointwise((call.operand(input), call.operand(other)), zero=True, constant_safe=False)
    return call.output(align(call, [input.axes, other.axes]), flow)


@rule(torch.heaviside, "heaviside")
def step(call: Call, input: Value, values: Value) -> Value:
    """0 below zero, 1 above, and what `values` says at it."""
    flow = fl.Pointwise((call.operand(input), call.operand(values)))
    return call.output(align(call, [input.axes, values.axes]), flow)


@rule(torch.ldexp, "ldexp")
def times_power_of_two(call: Call, input: Value, other: Value) -> Value:
    """Linear in the first, by 2 to the power of the second."""
    power = fl.Pointwise((call.operand(other),), total=False, total_at_zero=True)
    return call.output(align(call, [input.axes, other.axes]), fl.Mul((call.operand(input), power)))
