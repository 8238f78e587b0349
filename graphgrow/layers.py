"""Modules that capture puts in the place of functions whose behaviour follows train and eval."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F


class ScaledDotProductAttention(nn.Module):
    """`F.scaled_dot_product_attention`, with its dropout live: active in train mode alone.

    Attributes:
        dropout_p: probability with which an attention weight is dropped in train mode.
        is_causal: whether position i sees positions up to i only.
        scale: factor on the scores; None is 1 / sqrt(head width).
        enable_gqa: whether several query heads share one key and value head.
    """

    def __init__(
        self, dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False
    ) -> None:
        super().__init__()
        self.dropout_p, self.is_causal, self.scale, self.enable_gqa = dropout_p, is_causal, scale, enable_gqa

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(..., L, D), (..., S, D), (..., S, V) -> (..., L, V)."""
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=self.dropout_p if self.training else 0.0,
            is_causal=self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"dropout_p={self.dropout_p}, is_causal={self.is_causal}, scale={self.scale}"


@fx.node.has_side_effect  # so that a node without readers stays
def require_same(value: Any, captured: Any, name: str) -> None:
    """Refuse a call with another value of an input that the graph was specialised to.

    Raises:
        ValueError: if the value is not the one of the capture.
    """
    same = value is captured if captured is None or isinstance(value, torch.Tensor) else value == captured
    if not same:
        raise ValueError(
            f"the graph was captured with {name}={captured!r} and holds for that alone, not for {value!r:.60}; "
            "capture it again with example inputs that have the new value"
        )
