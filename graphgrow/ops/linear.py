"""Linear maps: nn.Linear, F.linear, matmul."""

from __future__ import annotations

import operator

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined
from graphgrow.ops.registry import rule


@rule(F.linear)
def linear(call: Call, input: Value, weight: Value, bias: Value | None = None) -> Value:
    """(..., in) x (out, in) -> (..., out)."""
    if len(weight.axes) != 2:
        raise RuleDeclined("a weight that is not a matrix")
    call.starts(weight, Fresh.HE, fan=(1,))
    call.starts(bias, Fresh.ZEROS)
    call.contract(input, -1, weight, 1)
    if bias is not None:
        call.same(weight.axes[0], bias.axes[0])
    flow = fl.Mul((call.operand(input, drop=[-1]), call.operand(weight, drop=[1])))
    return call.output((*input.axes[:-1], weight.axes[0]), call.plus_bias(flow, bias))


@rule(nn.Linear, NonDynamicallyQuantizableLinear)
def linear_module(call: Call, input: Value) -> Value:
    """nn.Linear."""
    weight = call.weight("weight", Fresh.HE, fan=(1,))
    call.attribute("out_features", weight.axes[0])
    call.attribute("in_features", weight.axes[1])
    return linear(call, input, weight, call.parameter("bias", Fresh.ZEROS))


@rule(torch.matmul, torch.bmm, operator.matmul, "matmul", "bmm", "__matmul__")
def matmul(call: Call, input: Value, other: Value) -> Value:
    """(..., n, k) x (..., k, m) -> (..., n, m), batch axes broadcast."""
    if len(input.axes) < 2 or len(other.axes) < 2:
        raise RuleDeclined("a matmul with a vector")
    call.contract(input, -1, other, -2)
    batch = align(call, [input.axes[:-2], other.axes[:-2]])
    flow = fl.Mul((call.operand(input, drop=[-1]), call.operand(other, drop=[-2])))
    return call.output((*batch, input.axes[-2], other.axes[-1]), flow)
