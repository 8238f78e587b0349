"""Connections that start closed: gates, and projections to another width or resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.blocks.block import Block, conv
from graphgrow.layers import Gate

_TO_SIZE: dict[int, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


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
    """target + projection(source) on maps: brought to the target's resolution, 1x1, zero at the start.

    No gate stands beside the projection: zero times zero would never learn. The resolution is read off the target,
    so that inputs of other sizes go through as before: (33, 33) halves to (17, 17) or to (16, 16), as the target does.

    Args:
        channels: of the source.
        target_channels: of the target.
        dims: number of spatial axes.
        resize: None where the resolutions are equal, "pool" for averages, "nearest" for interpolation.
    """

    closed: ClassVar[tuple[str, ...]] = ("projection",)

    def __init__(self, channels: int, target_channels: int, dims: int, resize: str | None) -> None:
        super().__init__()
        self.dims, self.resize = dims, resize
        self.projection = conv(dims, channels, target_channels, 1, bias=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(N, C, positions...) and (N, D, positions...) -> the target's shape."""
        if self.resize is not None:  # nothing is read off the target that no operator needs
            source = self.resized(source, target.shape[2:])
        result: torch.Tensor = target + self.projection(source)
        return result

    def resized(self, source: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """The source at the target's resolution: what the projection reads."""
        if self.resize == "pool":
            return _TO_SIZE[self.dims](source, size)
        return F.interpolate(source, size=size) if self.resize == "nearest" else source


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
