"""What a connection carries while it is closed, or passes from one operator to another."""

from __future__ import annotations

import torch
from torch import nn


class Gate(nn.Module):
    """A learned factor on a whole tensor, zero at the start: a closed connection whose factor has a gradient.

    Attributes:
        gate: the factor, a scalar parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Gate * input, of the input's shape."""
        return self.gate * input


class Blend(nn.Module):
    """A trainable passage from one activation to another: (1 - s) old(x) + s new(x), with s = 0 at the start.

    With s = 0 it is the old activation to the bit wherever the new one is finite; with s = 1 the new one.

    Args:
        old: the present activation.
        new: the one to come.

    Attributes:
        s: the share of the new activation, a scalar parameter.
    """

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old = old
        self.new = new
        self.s = nn.Parameter(torch.zeros(()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Of the input's shape."""
        blended: torch.Tensor = (1 - self.s) * self.old(input) + self.s * self.new(input)
        return blended


class Zeros(nn.Module):
    """Zero, whatever comes in: the operator of a connection that carries nothing."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Zeros of the input's shape."""
        return torch.zeros_like(input)
