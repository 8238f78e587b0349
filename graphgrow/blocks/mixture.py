"""A choice beside an operator: candidates on its input, and the weighted sum of all outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from graphgrow.blocks.block import Block
from graphgrow.layers import Choice

PRESENT = "present"


class Mixture(Block):
    """choice(y, first(x), second(x), ...) beside an operator that maps x to y, closed on y.

    Args:
        names: of the candidates.
        operators: what builds each of them.
    """

    def __init__(self, names: Sequence[str], operators: Sequence[Callable[[], nn.Module]]) -> None:
        super().__init__()
        self.places = [name.replace("-", "_") for name in names]
        for place, make in zip(self.places, operators, strict=True):
            self.add_module(place, make())
        self.choice = Choice((PRESENT, *names))

    def start(self, generator: torch.Generator) -> None:
        """Fresh weights for the candidates; the choice closed."""
        super().start(generator)
        self.choice.start()
        for part in self.modules():
            if isinstance(part, nn.PReLU):
                nn.init.constant_(part.weight, 0.25)  # torch's own start

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The operator's input and its output -> the shape of y."""
        result: torch.Tensor = self.choice(y, *(getattr(self, place)(x) for place in self.places))
        return result
