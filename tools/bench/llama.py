"""A stack in the shape of Llama: RMS norms, rotary embeddings, grouped-query attention, gated MLPs (Touvron 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """The defaults are those of Llama 3.2 1B but for a vocabulary of 32,000: 1.1 billion parameters."""

    width: int = 2048
    layers: int = 16
    heads: int = 32
    key_heads: int = 8
    hidden: int = 8192
    vocabulary: int = 32000
    length: int = 64


class Attention(nn.Module):
    """Causal attention, in which several query heads share a key and value head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head = shape.width // shape.heads
        self.query = nn.Linear(shape.width, shape.heads * self.head, bias=False)
        self.key = nn.Linear(shape.width, shape.key_heads * self.head, bias=False)
        self.value = nn.Linear(shape.width, shape.key_heads * self.head, bias=False)
        self.out = nn.Linear(shape.heads * self.head, shape.width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Map (batch, length, width) to the same shape; cos and sin are (length, head / 2)."""
        batch, length, _ = x.shape
        query, key, value = (
            map_(x).view(batch, length, -1, self.head).transpose(1, 2) for map_ in (self.query, self.key, self.value)
        )
        query, key = rotated(query, cos, sin), rotated(key, cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        result: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) of (batch, heads, length, head)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class GatedMLP(nn.Module):
    """silu(gate) * up, and down again (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to the same shape."""
        result: torch.Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return result


class Block(nn.Module):
    """Pre-norm attention and MLP on the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1, self.attention = nn.RMSNorm(shape.width, eps=1e-5), Attention(shape)
        self.norm2, self.mlp = nn.RMSNorm(shape.width, eps=1e-5), GatedMLP(shape)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Map (batch, length, width) to the same shape."""
        x = x + self.attention(self.norm1(x), cos, sin)
        result: torch.Tensor = x + self.mlp(self.norm2(x))
        return result


class Llama(nn.Module):
    """Tokens to logits."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=1e-5)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        head = shape.width // shape.heads
        angles = torch.arange(shape.length)[:, None] * 10000.0 ** (-torch.arange(0, head, 2) / head)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map token ids (batch, length) to logits (batch, length, vocabulary)."""
        x = self.embed(tokens)
        length = tokens.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        logits: torch.Tensor = self.head(self.norm(x))
        return logits


def llama(shape: Shape, seed: int) -> Llama:
    """A stack in bfloat16 on the CPU, its matrices normal with deviation 0.02; never held in float32."""
    with torch.device("meta"):
        model = Llama(shape).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(seed)
    buffers = Llama(Shape(width=shape.width, heads=shape.heads, length=shape.length, layers=0, vocabulary=1, hidden=1))
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        model.cos.copy_(buffers.cos)
        model.sin.copy_(buffers.sin)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, 0.02, generator=generator)
    return model
