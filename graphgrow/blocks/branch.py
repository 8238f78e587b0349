"""Branches beside an operator, whose last linear map starts at zero.

That map has no bias: the operator has one where it is of use, and in front of a batch norm none would ever learn.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from graphgrow.blocks.block import Block, conv

_POOLS: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class ConvBranch(Block):
    """y + last(act(norm(first(x)))) beside a convolution, on maps.

    Args:
        first: a convolution with the stride of the operator beside it, so that the resolutions agree.
        norm: of its channels, or Identity.
        activation: behind it.
        hidden: its channels.
        outputs: channels of y.
        dims: number of spatial axes.
    """

    closed: ClassVar[tuple[str, ...]] = ("last",)
    activated: ClassVar[tuple[tuple[str, ...], ...]] = (("first", "norm", "activation"),)

    def __init__(
        self, first: nn.Module, norm: nn.Module, activation: nn.Module, hidden: int, outputs: int, dims: int
    ) -> None:
        super().__init__()
        self.first, self.norm, self.activation = first, norm, activation
        self.last = conv(dims, hidden, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(N, C, positions...) and (N, D, positions...) -> the shape of y."""
        branch: torch.Tensor = self.last(self.activation(self.norm(self.first(x))))
        return y + branch


class PoolBranch(Block):
    """y + last(average(x)) beside a convolution, on maps.

    Args:
        inputs: channels of x.
        outputs: channels of y.
        dims: number of spatial axes.
        window: of the average.
        stride: of the operator beside it.
        padding: of the average.
    """

    closed: ClassVar[tuple[str, ...]] = ("last",)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dims: int,
        window: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.pool = _POOLS[dims](window, stride=stride, padding=padding)
        self.last = conv(dims, inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(N, C, positions...) and (N, D, positions...) -> the shape of y."""
        branch: torch.Tensor = self.last(self.pool(x))
        return y + branch


class MlpBranch(Block):
    """y + last(act(first(x))) beside a linear map, on features; without an activation a map of low rank.

    Hu et al., "LoRA", 2022 (arXiv:2106.09685), is the form without an activation.

    Args:
        inputs: width of x.
        hidden: width between the two maps.
        outputs: width of y.
        activation: between them, or Identity.
    """

    closed: ClassVar[tuple[str, ...]] = ("last",)
    activated: ClassVar[tuple[tuple[str, ...], ...]] = (("first", "activation"),)

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden, bias=False)
        self.activation = activation
        self.last = nn.Linear(hidden, outputs, bias=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(..., C) and (..., D) -> (..., D)."""
        branch: torch.Tensor = self.last(self.activation(self.first(x)))
        return y + branch
