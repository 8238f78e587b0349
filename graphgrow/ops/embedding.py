"""Embedding tables."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.call import Call, meta_shape
from graphgrow.ops.registry import rule


@rule(F.embedding)
def embedding(
    call: Call,
    input: Value,
    weight: Value,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    """(...) indices into (V, E) -> (..., E)."""
    call.starts(weight, Fresh.LIKE)
    call.freeze([weight.axes[0]], "a table that is indexed by position")
    if max_norm is not None:
        call.freeze([weight.axes[1]], "rows whose norm is limited")
    return call.output((*input.axes, weight.axes[1]), fl.Same(call.operand(weight, drop=[0])))


@rule(nn.Embedding)
def embedding_module(call: Call, input: Value) -> Value:
    """nn.Embedding."""
    module = call.module
    assert isinstance(module, nn.Embedding)
    weight = call.weight("weight", Fresh.LIKE)
    call.attribute("num_embeddings", weight.axes[0])
    call.attribute("embedding_dim", weight.axes[1])
    return embedding(call, input, weight, max_norm=module.max_norm)


@rule(nn.EmbeddingBag)
def embedding_bag(call: Call, input: Value, offsets: Value | None = None, per_sample_weights: Any = None) -> Value:
    """(B, N) indices into (V, E) -> (B, E), or flat ones with offsets: sums, means or maxima of rows."""
    module = call.module
    assert isinstance(module, nn.EmbeddingBag)
    weight = call.weight("weight", Fresh.LIKE)
    call.attribute("num_embeddings", weight.axes[0])
    call.attribute("embedding_dim", weight.axes[1])
    call.freeze([weight.axes[0]], "a table that is indexed by position")
    if module.max_norm is not None:
        call.freeze([weight.axes[1]], "rows whose norm is limited")
    weighed = per_sample_weights.axes if isinstance(per_sample_weights, Value) else ()
    call.freeze([*(input.axes[1:] if offsets is None else input.axes), *weighed[-1:]], "rows of a bag by position")
    if weighed and offsets is None:
        call.same(weighed[0], input.axes[0])
    bags = input.axes[:1] if offsets is None else (call.fixed(meta_shape(call.meta)[0], "bags by position"),)
    rows = call.operand(weight, drop=[0])
    return call.output(
        (*bags, weight.axes[1]), fl.Pointwise((rows,), zero=True) if module.mode == "max" else fl.Same(rows)
    )
