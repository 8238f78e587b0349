"""Attention of any number of axes as attention of four, which is all that torch's exporter translates."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class WithHeads(TorchFunctionMode):
    """While it is entered, `scaled_dot_product_attention` without a head axis is called with one of size 1.

    (L, E) and (N, L, E) become (1, 1, L, E) and (N, 1, L, E), further batch axes become one with the first, and what
    comes out has the axes of the original: the same products and sums. What shares heads among groups is left alone,
    since there the third axis from behind says which.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Rewrite the one function; call all others as they are."""
        named = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention or named.get("enable_gqa"):
            return func(*args, **named)
        named |= zip(("query", "key", "value", "attn_mask"), args[:4], strict=False)
        query, key, value = (named.pop(name) for name in ("query", "key", "value"))
        if query.dim() == 4 or not query.dim() == key.dim() == value.dim():
            return func(*args, **dict(kwargs or {}))
        mask = named.pop("attn_mask", None)
        lead, rest = query.shape[:-2], args[4:]
        if query.dim() > 4:
            if mask is not None and mask.dim() > 2:
                mask = mask.expand(*lead, *mask.shape[-2:]).flatten(0, -4)
            query, key, value = (one.expand(*lead, *one.shape[-2:]).flatten(0, -4) for one in (query, key, value))
        else:
            query, key, value = (_headed(one) for one in (query, key, value))
            mask = _headed(mask) if mask is not None and mask.dim() > 2 else mask
        found: torch.Tensor = func(query, key, value, mask, *rest, **named)
        return found.reshape(*lead, *found.shape[-2:])


def _headed(value: torch.Tensor) -> torch.Tensor:
    """(L, E) or (N, L, E) with axes of size 1 in front of the last two, four in all."""
    return value[:, None] if value.dim() == 3 else value[None, None]
