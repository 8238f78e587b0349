"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Axes, Space, normal
from graphgrow.ir.value import Value
from graphgrow.layers import ScaledDotProductAttention
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, plain
from graphgrow.ops.registry import rule


@rule(F.scaled_dot_product_attention)
def attention(
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """(..., L, D), (..., S, D), (..., S, V) -> (..., L, V); softmax over S."""
    if scale is None:
        size = query.axes[-1].size
        call.pin(("kwargs", "scale"), (query.axes[-1],), 1.0 / math.sqrt(size))
    _order(call, query, is_causal)
    return _attend(call, query, key, value, attn_mask, float(plain(dropout_p)), enable_gqa)


def _order(call: Call, query: Value, is_causal: Any) -> None:
    """A causal mask counts the queries: a copy of one, at another place, would see other keys."""
    if is_causal:
        call.freeze([query.axes[-2]], "a causal mask over it")


@rule(ScaledDotProductAttention)
def attention_module(call: Call, query: Value, key: Value, value: Value, attn_mask: Value | None = None) -> Value:
    """The module form, whose dropout follows train and eval."""
    module = call.module
    assert isinstance(module, ScaledDotProductAttention)
    if module.scale is None:
        call.pin(("scale",), (query.axes[-1],), 1.0 / math.sqrt(query.axes[-1].size), on_module=True)
    _order(call, query, module.is_causal)
    return _attend(call, query, key, value, attn_mask, module.dropout_p, module.enable_gqa)


def _attend(call: Call, query: Value, key: Value, value: Value, mask: Any, dropout_p: float, grouped: bool) -> Value:
    shared = grouped and query.axes[-3].size != key.axes[-3].size
    if shared:  # a query head reads the key and value head of its group
        sizes = (key.axes[-3].size, query.axes[-3].size // key.axes[-3].size)
        group = call.factor(query.axes[-3], sizes, ("heads", "queries"))[0]
        call.same(group, key.axes[-3])
        call.same(group, value.axes[-3])
    elif len(query.axes) >= 3:
        _label(query.axes[-3:-2], "heads")
    call.contract(query, -1, key, -1)
    _label(query.axes[-1:], "head_width")
    _label(value.axes[-1:], "value_width")
    call.same(key.axes[-2], value.axes[-2])
    call.freeze([key.axes[-2]], "a softmax over it")
    if shared:
        batch = (*align(call, [query.axes[:-3], key.axes[:-3], value.axes[:-3]]), query.axes[-3])
    else:
        batch = align(call, [query.axes[:-2], key.axes[:-2], value.axes[:-2]])
    scores: list[fl.Flow] = [call.operand(query, drop=[-1]), call.operand(key, drop=[-1, -2])]
    if isinstance(mask, Value):
        align(call, [mask.axes, (*batch, query.axes[-2], key.axes[-2])])
        scores.append(call.operand(mask, drop=[-1]))
    if dropout_p > 0:
        call.noise(value, dropout_p)
    flow = fl.Mul((fl.Pointwise(tuple(scores)), call.operand(value, drop=[-2])))
    return call.output((*batch, query.axes[-2], value.axes[-1]), flow)


def _label(axes: Axes, label: str) -> None:
    for term in map(normal, axes):
        if isinstance(term, Space) and not term.label:
            term.label = label
