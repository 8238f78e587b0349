"""Mixtures of experts: who is chosen, and rows of tokens by the matrix of their expert."""

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


@rule("transformers::grouped_mm_fallback")
def grouped_matmul(call: Call, input: Value, weight: Value, offs: Value) -> Value:
    """(S, K) x (experts, K, N) -> (S, N): each row by the matrix of the expert between whose offsets it lies."""
    call.starts(weight, Fresh.HE, fan=(1,))
    call.freeze([weight.axes[0], input.axes[0]], "experts are chosen by number")
    call.contract(input, 1, weight, 1)
    rows = fl.Mul((call.operand(input, drop=[1]), call.operand(weight, drop=[0, 1])))
    return call.output((input.axes[0], weight.axes[2]), rows)
