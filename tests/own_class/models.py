"""Models as people write them, with methods of their own and sizes in attributes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Packed attention; the width of a head is what is left of the last axis, so that a wrong number of heads runs."""

    def __init__(self, width: int, heads: int, number: int) -> None:
        super().__init__()
        self.heads, self.inner, self.number = heads, width, number
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, width) -> the same."""
        parts = self.qkv(x).split(self.inner, dim=-1)
        q, k, v = (part.view(x.size(0), x.size(1), self.heads, -1).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: torch.Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Attention and an MLP, each added to its input behind a norm that is written out."""

    def __init__(self, config: Any, number: int) -> None:
        super().__init__()
        self.config, self.eps = config, 1e-5
        self.attention = Attention(config.width, config.heads, number)
        self.scale = nn.Parameter(torch.ones(config.width))
        self.up, self.down = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, width) -> the same."""
        x = x + self.attention(x)
        normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.scale
        result: torch.Tensor = x + self.down(F.gelu(self.up(normal)))
        return result


class Decoder(nn.Module):
    """A small language model that generates, its head tied to its table; one map is of use to no forward."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(width=8, heads=2, hidden=12, num_layers=layers)
        self.embed = nn.Embedding(11, 8)
        self.layers: Any = nn.ModuleList(Block(self.config, number) for number in range(layers))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Linear(3, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, l) -> (n, l, 11)."""
        x = self.embed(tokens)
        for layer in self.layers[: self.config.num_layers]:
            x = layer(x)
        result: torch.Tensor = self.head(x)
        return result

    def generate(self, tokens: torch.Tensor, steps: int) -> torch.Tensor:
        """The likeliest tokens, one after the other."""
        for _ in range(steps):
            tokens = torch.cat([tokens, self(tokens)[:, -1:].argmax(-1)], 1)
        return tokens
