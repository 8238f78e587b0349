"""What chooses among experts."""

from __future__ import annotations

import torch
from torch import nn

from graphgrow.blocks.block import Block
from graphgrow.layers import Router


class Routing(Block):
    """The shares of experts for each token, from a random router: equal scores would starve all but the first.

    Args:
        width: of a token.
        experts: how many there are.
        top_k: how many are chosen for a token.
    """

    def __init__(self, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.router = Router(width, experts, top_k)

    def start(self, generator: torch.Generator) -> None:
        """Scores of unit variance on normalised tokens; with rows of one length, each expert has tokens of its own."""
        nn.init.normal_(self.router.weight, generator=generator)
        with torch.no_grad():
            self.router.weight.div_(self.router.weight.norm(dim=1, keepdim=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., experts)."""
        shares: torch.Tensor = self.router(x)
        return shares
