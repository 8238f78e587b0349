"""A model of several inputs, whose blocks share an attention mask."""

from __future__ import annotations

import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph


class Masked(nn.Module):
    """Two residual blocks of attention that share one mask and a scale, both inputs of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.a, self.b = MaskedBlock(), MaskedBlock()

    def forward(self, x: torch.Tensor, mask: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        memory = self.stem(memory)
        result: torch.Tensor = self.head(self.b(self.a(x, mask, memory), mask, memory))
        return result


class MaskedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.attention(y, memory, memory, attn_mask=mask, need_weights=False)[0]


def masked() -> Graph:
    mask = torch.zeros(5, 5, dtype=torch.float64)
    x, memory = (torch.randn(2, 5, 3, dtype=torch.float64) for _ in range(2))
    return gg.trace(Masked().double(), (x, mask, memory))
