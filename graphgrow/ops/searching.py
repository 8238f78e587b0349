"""Values looked up among others: which interval they lie in, whether they are among them, what lies at a flat place."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule


@rule(torch.bucketize)
def interval(call: Call, input: Any, boundaries: Value, **options: Any) -> Value:
    """The number of the interval between boundaries that each value lies in."""
    call.freeze(boundaries.axes, "boundaries of intervals")
    operands = (call.operand(input),) if isinstance(input, Value) else ()
    return call.output(input.axes if isinstance(input, Value) else (), fl.Pointwise(operands))


@rule(torch.searchsorted)
def place(call: Call, sorted_sequence: Value, input: Any, **options: Any) -> Value:
    """Where each value belongs in the last axis of a sequence, which has the same axes in front, or no other."""
    call.freeze(sorted_sequence.axes[-1:], "boundaries of intervals")
    if not isinstance(input, Value):
        return call.output((), fl.Pointwise(()))
    terms = [call.operand(input)]
    if len(sorted_sequence.axes) > 1:
        for mine, theirs in zip(sorted_sequence.axes[:-1], input.axes[:-1], strict=True):
            call.same(mine, theirs)
        terms.append(call.operand(sorted_sequence, drop=[-1]))
    return call.output(input.axes, fl.Pointwise(tuple(terms)))


@rule(torch.isin)
def among(call: Call, elements: Value, test_elements: Any, **options: Any) -> Value:
    """Whether each value is one of some others."""
    if isinstance(test_elements, Value):
        call.freeze(test_elements.axes, "searched by value")
    return call.output(elements.axes, fl.Pointwise((call.operand(elements),)))


@rule(torch.take, "take")
def taken(call: Call, input: Value, index: Value) -> Value:
    """The entries at some places of the tensor as it lies flat."""
    call.freeze(input.axes, "indexed by position")
    return call.output(index.axes, fl.Choose((call.operand(index),)))
