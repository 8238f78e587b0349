"""The router of a mixture of experts."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Router(nn.Module):
    """The shares of a mixture of experts: a softmax over the `top_k` largest scores, zero for all others.

    The shares of the chosen ones add up to 1, as if a softmax over all were normalised again over them (Jiang et al.,
    "Mixtral of experts", 2024, arXiv:2401.04088).

    Args:
        width: of a token.
        experts: how many there are.
        top_k: how many are chosen for a token.

    Attributes:
        weight: of the scores, shape (experts, width).
    """

    def __init__(self, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.width, self.experts, self.top_k = width, experts, top_k
        self.weight = nn.Parameter(torch.empty(experts, width))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., experts)."""
        scores = F.linear(input, self.weight)
        chosen = scores.topk(self.top_k, dim=-1)
        return torch.zeros_like(scores).scatter(-1, chosen.indices, torch.softmax(chosen.values, dim=-1))

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"width={self.width}, experts={self.experts}, top_k={self.top_k}"
