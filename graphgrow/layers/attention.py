"""Attention as one operator, with its dropout live."""

from __future__ import annotations

import torch
from torch import nn
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
