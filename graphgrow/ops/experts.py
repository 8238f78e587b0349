"""Mixtures of experts."""

from __future__ import annotations

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Fresh, Value
from graphgrow.layers import Router
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule


@rule(Router)
def router(call: Call, input: Value) -> Value:
    """(..., width) -> (..., experts): shares that depend on all scores."""
    weight = call.weight("weight", Fresh.HE, fan=(1,))
    call.attribute("width", weight.axes[1])
    call.contract(input, -1, weight, 1)
    call.freeze([weight.axes[0]], "experts that are chosen among")
    shares = fl.Pointwise((call.operand(input, drop=[-1]),))
    return call.output((*input.axes[:-1], weight.axes[0]), shares)
