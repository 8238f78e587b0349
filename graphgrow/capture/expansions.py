"""Composite layers of torch.nn, written out as the operators that they are made of.

nn.MultiheadAttention packs three projections in one parameter and ties their width to the stream's. Written out,
its parameters keep their names, and heads and widths become axes of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.errors import CaptureError

Expansion = Callable[..., Any]


def expansion_of(module_class: type[nn.Module]) -> Expansion | None:
    """The expansion of a module class, or None."""
    return _EXPANSIONS.get(module_class)


def _multihead_attention(
    module: Any,  # an nn.MultiheadAttention, whose annotations hide that parts may be None
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Any, Any]:
    """nn.MultiheadAttention: (N, L, E) or (L, N, E) -> the same shape, and the weights where asked for."""
    if module.bias_k is not None or module.add_zero_attn:
        raise CaptureError(
            "nn.MultiheadAttention with add_bias_kv or add_zero_attn is not supported; mark it as a leaf"
        )
    if len(query.shape) != 3:
        raise CaptureError("nn.MultiheadAttention without a batch axis is not supported; mark it as a leaf")
    projections = _project(module, query, key, value)
    if not module.batch_first:
        projections = tuple(x.transpose(0, 1) for x in projections)
    q, k, v = (x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for x in projections)
    mask = _merge_masks(attn_mask, key_padding_mask, is_causal, q, k)
    if need_weights:
        heads, weights = _weighted(module, q, k, v, mask)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        heads, weights = (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=_dropout(module)),
            None,
        )
    joined = heads.transpose(1, 2).flatten(-2)
    if not module.batch_first:
        joined = joined.transpose(0, 1)
    return module.out_proj(joined), weights


def _dropout(module: Any) -> float:
    return float(module.dropout) if module.training else 0.0


def _project(module: Any, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    bias = module.in_proj_bias
    if module.in_proj_weight is None:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    elif query is key and key is value:
        q, k, v = F.linear(query, module.in_proj_weight, bias).chunk(3, dim=-1)
        return q, k, v
    else:
        weights = module.in_proj_weight.chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    q, k, v = (F.linear(x, weight, b) for x, weight, b in zip((query, key, value), weights, biases, strict=True))
    return q, k, v


def _merge_masks(attn_mask: Any, key_padding_mask: Any, is_causal: bool, q: Any, k: Any) -> Any:
    """One mask for the scores (N, H, L, S): boolean True means hidden in torch's layer, seen in its function."""
    if is_causal and attn_mask is None:
        raise CaptureError("nn.MultiheadAttention with is_causal=True needs its attn_mask")
    masks = []
    if attn_mask is not None:
        if len(attn_mask.shape) == 3:
            attn_mask = attn_mask.unflatten(0, (-1, q.shape[1]))
        masks.append(_additive(attn_mask, q))
    if key_padding_mask is not None:
        masks.append(_additive(key_padding_mask, q).unsqueeze(1).unsqueeze(1))
    if not masks:
        return None
    return masks[0] if len(masks) == 1 else masks[0] + masks[1]


def _additive(mask: Any, q: Any) -> Any:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))


def _weighted(module: Any, q: Any, k: Any, v: Any, mask: Any) -> tuple[Any, Any]:
    """Attention that also returns its weights (N, H, L, S); the scale is that of the width at capture."""
    scores = (q * (float(q.shape[-1]) ** -0.5)) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores + mask
    weights = F.dropout(torch.softmax(scores, dim=-1), module.dropout, training=module.training)
    return weights @ v, weights


_EXPANSIONS: dict[type[nn.Module], Expansion] = {nn.MultiheadAttention: _multihead_attention}
