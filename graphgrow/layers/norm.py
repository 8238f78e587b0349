"""The root-mean-square norm of language models."""

from __future__ import annotations

import torch
from torch import nn


class RootMeanSquareNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * w over the last axis, with the casts that language models make around it.

    For inputs up to float32 it is, to the bit, the formula that it stands for.

    Args:
        width: C, or None for a norm without a weight.
        eps: added to the mean of squares.
        offset: added to the weight: 1 for norms that scale by 1 + w.
        upcast: whether statistics and scaling are computed in float32 at least, or in the input's dtype.
        cast_last: whether the result is scaled in float32 and cast to the input's dtype then, or cast before that.
        stays_wide: whether it is never cast back.

    Attributes:
        weight: (C,), or None.
    """

    def __init__(
        self,
        width: int | None,
        eps: float = 1e-6,
        offset: float = 0.0,
        upcast: bool = True,
        cast_last: bool = False,
        stays_wide: bool = False,
    ) -> None:
        super().__init__()
        start = 0.0 if offset else 1.0
        self.width = width
        self.weight: nn.Parameter | None
        self.register_parameter("weight", None if width is None else nn.Parameter(torch.full((width,), start)))
        self.eps, self.offset, self.upcast, self.cast_last, self.stays_wide = eps, offset, upcast, cast_last, stays_wide

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., C)."""
        wide = input.to(torch.promote_types(input.dtype, torch.float32)) if self.upcast else input
        normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        result = wide.dtype if self.stays_wide else input.dtype
        if self.weight is None:
            return normal.to(result)
        if self.cast_last:
            weight = self.weight.to(wide.dtype)
            return (normal * (self.offset + weight if self.offset else weight)).to(result)
        weight = self.offset + self.weight if self.offset else self.weight
        return weight * normal.to(result)

    def extra_repr(self) -> str:
        """The options, for printing."""
        casts = f"upcast={self.upcast}, cast_last={self.cast_last}, stays_wide={self.stays_wide}"
        return f"{self.width}, eps={self.eps}, offset={self.offset}, {casts}"
