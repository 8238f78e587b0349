"""Choices element by element: where, masked_fill."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, plain
from graphgrow.ops.registry import rule


@rule(torch.where, "where")
def where(call: Call, condition: Value, input: Any, other: Any) -> Value:
    """One of two by a condition; the method stands at the first of the two."""
    return (
        _chosen(call, input, (condition, other))
        if call.node.op == "call_method"
        else _chosen(call, condition, (input, other))
    )


@rule("masked_fill", "masked_fill_", torch.masked_fill)
def masked_fill(call: Call, input: Value, mask: Value, value: Any) -> Value:
    """A number where the mask is set."""
    return _chosen(call, mask, (input, value))


def _chosen(call: Call, condition: Value, given: tuple[Any, ...]) -> Value:
    """Linear in what is chosen from, and in that alone, as long as all units are chosen by one condition.

    A number of zero leaves what keeps zeros, means and shares; any other number is one value for all units.
    """
    operands = [value for value in (condition, *given) if isinstance(value, Value)]
    axes = align(call, [value.axes for value in operands])
    numbers = fl.Operand(condition, ())
    kept: list[fl.Flow] = [call.operand(v) if isinstance(v, Value) else numbers for v in given if not _is_zero(v)]
    places = fl.Pointwise((call.operand(condition),))
    return call.output(axes, fl.Mul((fl.Choose(tuple(kept)), places)) if kept else places)


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Value) and bool(plain(value) == 0)
