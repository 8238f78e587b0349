"""Assignment to an item, and to the numbers of a buffer, as operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


@fx.node.has_side_effect  # it may write into an input or a buffer
def set_item(input: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """`input[index] = value`, as an operator that returns the input."""
    input[index] = value
    return input


@fx.node.has_side_effect
def store_(buffer: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`buffer.data.copy_(value)`: a backward pass that needs the buffer takes its new numbers, and does not refuse."""
    buffer.data.copy_(value)
    return buffer
