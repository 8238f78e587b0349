"""Random numbers, one for each unit: new units have some of their own, and copies never those of what they copy."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call
from graphgrow.ops.factories import sized_axes
from graphgrow.ops.registry import rule


@rule(torch.rand_like, torch.randn_like, torch.randint_like, "normal_", "uniform_", "exponential_")
def drawn_like(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Numbers for each unit of a tensor, whatever it holds."""
    return call.draws(call.output(input.axes, fl.Drawn()))


@rule(torch.rand, torch.randn)
def drawn(call: Call, *sizes: Any, size: Any = None, **kwargs: Any) -> Value:
    """Numbers in given sizes."""
    return call.draws(call.output(sized_axes(call, sizes, size), fl.Drawn()))


@rule(torch.bernoulli, "bernoulli", torch.poisson)
def drawn_by(call: Call, input: Value, p: float | None = None, *, generator: Any = None) -> Value:
    """A number for each unit by a probability, or a rate, which must be one for new units too."""
    if p is None and call.node.target is torch.poisson:
        if not input.bounds.low >= 0:
            call.freeze(input.axes, "numbers are drawn by it as rates")
    elif p is None:
        _probabilities(call, input)
    return call.draws(call.output(input.axes, fl.Drawn()))


@rule("bernoulli_")
def drawn_over(call: Call, input: Value, p: float | Value = 0.5, *, generator: Any = None) -> Value:
    """Zeros and ones for each unit of a tensor, whatever it holds."""
    if isinstance(p, Value):
        _probabilities(call, p)
        align(call, [input.axes, p.axes])
    return call.draws(call.output(input.axes, fl.Drawn()))


def _probabilities(call: Call, value: Value) -> None:
    if not (value.bounds.low >= 0 and value.bounds.high <= 1):
        call.freeze(value.axes, "numbers are drawn by it as probabilities")


@rule(torch.normal)
def normal(call: Call, mean: Any, std: Any = 1.0, size: Any = None, *, generator: Any = None, **kwargs: Any) -> Value:
    """Normal numbers of given means and deviations, or in given sizes."""
    if size is not None:
        return call.draws(call.output(sized_axes(call, (), size, call.argument_path(2, "size")), fl.Drawn()))
    axes = align(call, [value.axes for value in (mean, std) if isinstance(value, Value)])
    if isinstance(std, Value) and not std.bounds.low >= 0:
        call.freeze(std.axes, "numbers are drawn by it as deviations")
    return call.draws(call.output(axes, fl.Drawn()))


@rule(F.gumbel_softmax)
def gumbel_softmax(
    call: Call, logits: Value, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Value:
    """A softmax of what has noise on each entry."""
    call.freeze([logits.axes[call.axis(logits, dim)]], "a softmax over it")
    return call.draws(call.output(logits.axes, fl.Pointwise((call.operand(logits),))))
