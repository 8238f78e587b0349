"""Complex numbers made of real ones and taken apart again: rotary embeddings as Llama's own code writes them."""

from __future__ import annotations

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule

_PARTS = "the real and the imaginary part"


@rule(torch.view_as_complex)
def joined(call: Call, input: Value) -> Value:
    """(..., 2) real -> (...) complex."""
    call.freeze(input.axes[-1:], _PARTS)
    return call.output(input.axes[:-1], fl.Same(call.operand(input, drop=[-1])))


@rule(torch.view_as_real)
def parted(call: Call, input: Value) -> Value:
    """(...) complex -> (..., 2) real."""
    return call.output((*input.axes, call.fixed(2, _PARTS)), call.same_flow(input))


@rule(torch.real, torch.imag, torch.conj, "conj", torch.conj_physical, "conj_physical", torch.resolve_conj,
      "resolve_conj")  # fmt: skip
def part(call: Call, input: Value) -> Value:
    """One part of each number, or its conjugate: linear over the reals, as sums, means and shares are."""
    return call.output(input.axes, call.same_flow(input))


@rule(torch.angle, "angle")
def angle(call: Call, input: Value) -> Value:
    """The angle of each number, that of zero being 0."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True, flat=True))


@rule(torch.complex)
def from_parts(call: Call, real: Value, imag: Value) -> Value:
    """Real and imaginary part -> complex."""
    return call.output(align(call, [real.axes, imag.axes]), fl.Add((call.operand(real), call.operand(imag))))


@rule(torch.polar)
def from_polar(call: Call, abs: Value, angle: Value) -> Value:
    """Length and angle -> complex; linear in the length."""
    turned = fl.Pointwise((call.operand(angle),))
    return call.output(align(call, [abs.axes, angle.axes]), fl.Mul((call.operand(abs), turned)))
