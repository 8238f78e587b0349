"""Linear maps: nn.Linear, F.linear, products of matrices and vectors, nn.Bilinear."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import varies
from graphgrow.ir.terms import product
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined, plain
from graphgrow.ops.registry import rule


@rule(F.linear)
def linear(call: Call, input: Value, weight: Value, bias: Value | None = None) -> Value:
    """(..., in) x (out, in) -> (..., out)."""
    if len(weight.axes) != 2:
        raise RuleDeclined("a weight that is not a matrix")
    call.starts(weight, Fresh.HE, fan=(1,))
    call.starts_bias(bias, weight)
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


def _multiply(call: Call, input: Value, other: Value) -> tuple[tuple[Any, ...], fl.Flow]:
    """Axes and flow of (..., n, k) x (..., k, m), where either may be a vector (k)."""
    column = -1 if len(other.axes) == 1 else -2
    call.contract(input, -1, other, column)
    batch = (
        align(call, [axes for axes in (input.axes[:-2], other.axes[:-2]) if axes])
        if max(len(input.axes), len(other.axes)) > 2
        else ()
    )
    rows = input.axes[-2:-1]
    columns = other.axes[-1:] if column == -2 else ()
    flow = fl.Mul((call.operand(input, drop=[-1]), call.operand(other, drop=[column])))
    return (*batch, *rows, *columns), flow


@rule(torch.matmul, torch.bmm, operator.matmul, torch.mm, torch.mv, torch.dot, torch.vdot, "matmul", "bmm", "mm", "mv",
      "dot", "vdot", "__matmul__")  # fmt: skip
def matmul(call: Call, input: Value, other: Value) -> Value:
    """(..., n, k) x (..., k, m) -> (..., n, m), batch axes broadcast; a vector lacks its n or m."""
    return call.output(*_multiply(call, input, other))


@rule(torch.addmm, torch.baddbmm, torch.addmv, "addmm", "baddbmm", "addmv")
def add_product(call: Call, input: Value, *factors: Value, beta: Any = 1, alpha: Any = 1, **named: Value) -> Value:
    """Beta * input + alpha * first x second; with beta 0 the input does not count."""
    first, second = (
        *factors,
        *(named[name] for name in sorted(named)),
    )  # batch1 and batch2, mat1 and mat2, mat and vec
    axes, flow = _multiply(call, first, second)
    axes = align(call, [axes, input.axes])
    if plain(beta) == 0 and not varies(beta):
        return call.output(axes, flow)
    call.starts(input, Fresh.ZEROS)
    return call.output(axes, fl.Add((flow, call.operand(input))))


@rule(torch.tensordot)
def tensor_product(call: Call, a: Value, b: Value, dims: Any = 2, out: None = None) -> Value:
    """A sum over products along several axes: the last of `a` with the first of `b`, or those of two lists."""
    if isinstance(dims, (tuple, list)):
        left, right = ([call.axis(value, one) for one in axes] for value, axes in zip((a, b), dims, strict=True))
    else:
        count = int(plain(dims))
        left, right = list(range(len(a.axes) - count, len(a.axes))), list(range(count))
    for value, summed in ((a, left), (b, right)):
        call.starts(value, Fresh.HE, fan=summed)
    for one, other in zip(left, right, strict=True):
        call.contract(a, one, b, other)
    kept = (term for value, summed in ((a, left), (b, right)) for i, term in enumerate(value.axes) if i not in summed)
    return call.output(kept, fl.Mul((call.operand(a, drop=left), call.operand(b, drop=right))))


@rule(torch.linalg.multi_dot, torch.chain_matmul)
def chain(call: Call, *tensors: Any) -> Value:
    """A product of several matrices, of which the first and the last may be vectors."""
    first, *others = tensors[0] if len(tensors) == 1 else tensors
    for other in others:
        first = call.output(*_multiply(call, first, other))
    return first  # type: ignore[no-any-return]


@rule(torch.inner, "inner")
def inner(call: Call, input: Value, other: Value) -> Value:
    """(..., k) and (..., k) -> the axes in front of both."""
    if not input.axes or not other.axes:
        raise RuleDeclined("a product with a number")
    call.contract(input, -1, other, -1)
    flow = fl.Mul((call.operand(input, drop=[-1]), call.operand(other, drop=[-1])))
    return call.output((*input.axes[:-1], *other.axes[:-1]), flow)


@rule(torch.linalg.vecdot)
def products_along(call: Call, x: Value, y: Value, *, dim: int = -1) -> Value:
    """Sums of products along one axis, the others broadcast."""
    axes = align(call, [x.axes, y.axes])
    at = dim % len(axes) - len(axes)
    if min(len(x.axes), len(y.axes)) < -at or x.axes[at].size != y.axes[at].size:
        raise RuleDeclined("one of them is broadcast along the axis")
    call.contract(x, at, y, at)
    flow = fl.Mul((call.operand(x, drop=[at]), call.operand(y, drop=[at])))
    return call.output((term for i, term in enumerate(axes) if i != at + len(axes)), flow)


@rule(torch.linalg.cross, torch.cross, "cross")
def cross_product(call: Call, input: Value, other: Value, dim: int | None = None) -> Value:
    """Normals to pairs of vectors of three entries: linear in each of the two."""
    axes = align(call, [input.axes, other.axes])
    if dim is None:  # torch.cross takes the first axis of three entries
        dim = -1 if call.node.target is torch.linalg.cross else [term.size for term in axes].index(3)
    at = dim % len(axes) - len(axes)
    call.freeze([axes[at]], "vectors of three entries")
    drops = [[at] if len(value.axes) >= -at else [] for value in (input, other)]
    return call.output(axes, fl.Mul(tuple(map(call.operand, (input, other), drops))))


@rule(torch.kron, "kron")
def kronecker_product(call: Call, input: Value, other: Value) -> Value:
    """(a, b) and (c, d) -> (a c, b d)."""
    if len(input.axes) != len(other.axes):
        raise RuleDeclined("operands of different ranks")
    axes = (product(pair) for pair in zip(input.axes, other.axes, strict=True))
    return call.output(axes, fl.Mul((call.operand(input), call.operand(other))))


@rule(torch.outer, "outer", torch.ger, "ger")
def outer(call: Call, input: Value, other: Value) -> Value:
    """(n) and (m) -> (n, m)."""
    return call.output((*input.axes, *other.axes), fl.Mul((call.operand(input), call.operand(other))))


@rule(F.bilinear)
def bilinear(call: Call, left: Value, right: Value, weight: Value, bias: Value | None = None) -> Value:
    """(..., i), (..., j) and a weight (o, i, j) -> (..., o)."""
    call.starts(weight, Fresh.HE, fan=(1, 2))
    call.starts(bias, Fresh.ZEROS)
    call.contract(left, -1, weight, 1)
    call.contract(right, -1, weight, 2)
    if bias is not None:
        call.same(weight.axes[0], bias.axes[0])
    batch = align(call, [left.axes[:-1], right.axes[:-1]])
    factors = (call.operand(left, drop=[-1]), call.operand(right, drop=[-1]), call.operand(weight, drop=[1, 2]))
    return call.output((*batch, weight.axes[0]), call.plus_bias(fl.Mul(factors), bias))


@rule(nn.Bilinear)
def bilinear_module(call: Call, left: Value, right: Value) -> Value:
    """nn.Bilinear."""
    weight = call.weight("weight", Fresh.HE, fan=(1, 2))
    call.attribute("out_features", weight.axes[0])
    call.attribute("in1_features", weight.axes[1])
    call.attribute("in2_features", weight.axes[2])
    return bilinear(call, left, right, weight, call.parameter("bias", Fresh.ZEROS))
