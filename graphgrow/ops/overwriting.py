"""A copy of a tensor in which a part is other than it was: along an axis by places, or where a mask says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule

_PLACES = "written into by position"


@rule(torch.index_fill, "index_fill")
def some_filled(call: Call, input: Value, dim: int, index: Value, value: Any) -> Value:
    """One number at some places of an axis."""
    call.freeze((input.axes[call.axis(input, dim)], *index.axes), _PLACES)
    given = (call.operand(value),) if isinstance(value, Value) else ()
    return call.output(input.axes, fl.Choose((call.operand(input), fl.Operand(input, ()), *given)))


@rule(torch.select_scatter, "select_scatter")
def one_written(call: Call, input: Value, src: Value, dim: int, index: int) -> Value:
    """Other values at one place of an axis."""
    at = call.axis(input, dim)
    return _written(call, input, src, at, (*input.axes[:at], *input.axes[at + 1 :]))


@rule(torch.slice_scatter, "slice_scatter")
def some_written(
    call: Call, input: Value, src: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    """Other values from one place of an axis to another."""
    at = call.axis(input, dim)
    call.freeze(src.axes[at : at + 1], _PLACES)
    part = list(input.axes)
    part[at] = src.axes[at]
    return _written(call, input, src, at, part)


def _written(call: Call, input: Value, src: Value, at: int, part: Sequence[Term]) -> Value:
    call.freeze([input.axes[at]], _PLACES)
    for mine, theirs in zip(part, src.axes, strict=True):
        call.same(mine, theirs)
    dropped = [at] if len(src.axes) == len(input.axes) else []
    return call.output(input.axes, fl.Choose((call.operand(input, drop=[at]), call.operand(src, drop=dropped))))


@rule(torch.index_put, "index_put")
def at_indices(call: Call, input: Value, indices: Sequence[Value], values: Value, accumulate: bool = False) -> Value:
    """Other values at the places that tensors of indices name along the first axes, or such values added there."""
    found = align(call, [index.axes for index in indices])
    count = len(indices)
    call.freeze((*input.axes[:count], *found), _PLACES)
    align(call, [(*found, *input.axes[count:]), values.axes])
    behind = min(len(input.axes) - count, len(values.axes))
    source = call.operand(values, drop=range(len(values.axes) - behind))
    target = call.operand(input, drop=range(count))
    return call.output(input.axes, fl.Add((target, source)) if accumulate else fl.Choose((target, source)))


@rule(torch.masked_scatter, "masked_scatter")
def by_mask(call: Call, input: Value, mask: Value, source: Value) -> Value:
    """The values of another tensor, one after the other, where a mask is set: which go where, all of it decides."""
    call.freeze((*input.axes, *mask.axes, *source.axes), _PLACES)
    return call.output(input.axes, fl.Choose((call.operand(input),)))
