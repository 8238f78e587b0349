"""A torch.autograd.Function of the user's, as a layer: one node of a graph, with the backward that it brings along."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class OwnFunction(nn.Module):
    """Calls a function that has a forward and a backward of its own.

    Args:
        kind: its class.
    """

    def __init__(self, kind: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, *args: Any) -> Any:
        """What the function returns."""
        return self.kind.apply(*args)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """The function's name."""
        return self.kind.__name__
