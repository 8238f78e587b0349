"""Connections that start closed: gates, and projections to another width or resolution."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.blocks.block import Block, conv
from graphgrow.layers import Gate

_POOLS: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class GatedSkip(Block):
    """target + gate * source, the gate a scalar that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Two tensors of one shape."""
        result: torch.Tensor = target + self.gate(source)
        return result


class ProjectedMaps(Block):
    """target + projection(source) on maps: pooled or interpolated to the target's resolution, 1x1, zero at the start.

    No gate stands beside the projection: zero times zero would never learn.

    Args:
        channels: of the source.
        target_channels: of the target.
        dims: number of spatial axes.
        pool: window and stride by which the source is pooled, one for each axis; None where it is not.
        resize: whether the source is interpolated (nearest) to the target's resolution.
    """

    closed: ClassVar[tuple[str, ...]] = ("projection",)

    def __init__(
        self, channels: int, target_channels: int, dims: int, pool: tuple[int, ...] | None, resize: bool
    ) -> None:
        super().__init__()
        self.pool = nn.Identity() if pool is None else _POOLS[dims](pool)
        self.pooled, self.resize = pool is not None, resize
        self.projection = conv(dims, channels, target_channels, 1, bias=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(N, C, positions...) and (N, D, positions...) -> the target's shape."""
        if self.pooled:
            source = self.pool(source)
        if self.resize:
            source = F.interpolate(source, size=target.shape[2:])
        result: torch.Tensor = target + self.projection(source)
        return result


class ProjectedFeatures(Block):
    """target + projection(source) on features (..., C), zero at the start.

    Args:
        width: of the source.
        target_width: of the target.
    """

    closed: ClassVar[tuple[str, ...]] = ("projection",)

    def __init__(self, width: int, target_width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, target_width, bias=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(..., C) and (..., D) -> (..., D)."""
        result: torch.Tensor = target + self.projection(source)
        return result
