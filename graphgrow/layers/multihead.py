"""nn.MultiheadAttention written out as the operators that it is made of, and as a layer whose heads have any width.

nn.MultiheadAttention packs three projections in one parameter and ties their width to the stream's. Written out,
its parameters keep their names, and heads and widths are axes of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class MultiheadAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention whose heads are together as wide as its weights say, not as its input is."""

    @classmethod
    def over(cls, layer: nn.MultiheadAttention) -> MultiheadAttention:
        """One in the place of a layer of torch's, over its weights and with what else it holds."""
        made = cls.__new__(cls)
        made.__dict__.update(layer.__dict__)
        made._qkv_same_embed_dim = False  # or nn.TransformerEncoderLayer would compute it by itself
        return made

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As that of nn.MultiheadAttention."""
        heads, weights = multihead_attention(self, *args, **kwargs)
        return heads, weights


def multihead_attention(
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
    """nn.MultiheadAttention: (N, L, E), (L, N, E) or (L, E) -> the same shape, and the weights where asked for."""
    assert attn_mask is not None or not is_causal  # torch refuses that when the model runs, before it is traced
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None  # as torch, which takes the caller's word for it
    else:
        is_causal = False
    single = len(query.shape) == 2
    projections = _project(module, query, key, value)
    if single:
        projections = tuple(x.unsqueeze(0) for x in projections)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    elif not module.batch_first:
        projections = tuple(x.transpose(0, 1) for x in projections)
    if module.bias_k is not None:
        q, k, v = projections
        k, v = (_behind(x, row) for x, row in ((k, module.bias_k), (v, module.bias_v)))
        projections = (q, k, v)
    q, k, v = (x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for x in projections)
    if module.add_zero_attn:
        k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
    added = (module.bias_k is not None) + bool(module.add_zero_attn)
    if added:  # tokens that no mask hides
        attn_mask, key_padding_mask = (
            None if m is None else F.pad(m, (0, added)) for m in (attn_mask, key_padding_mask)
        )
    mask = _merge_masks(attn_mask, key_padding_mask, q)
    if need_weights:
        heads, weights = _weighted(module, q, k, v, mask)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        heads, weights = (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=_dropout(module), is_causal=is_causal),
            None,
        )
    joined = heads.transpose(1, 2).flatten(-2)
    if single:
        return module.out_proj(joined.squeeze(0)), None if weights is None else weights.squeeze(0)
    if not module.batch_first:
        joined = joined.transpose(0, 1)
    return module.out_proj(joined), weights


def _behind(x: Any, row: Any) -> Any:
    """(N, S, E) with a learned row (1, 1, E) behind the last token of each."""
    return torch.cat([x, row.expand(x.shape[0], -1, -1)], dim=1)


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


def _merge_masks(attn_mask: Any, key_padding_mask: Any, q: Any) -> Any:
    """One mask for the scores (N, H, L, S): boolean True means hidden in torch's layer, seen in its function."""
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
