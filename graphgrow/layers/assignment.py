"""Assignment to an item as an operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


@fx.node.has_side_effect  # it may write into an input or a buffer
def set_item(input: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """`input[index] = value`, as an operator that returns the input."""
    input[index] = value
    return input
