"""A small causal language model: a pre-norm decoder with packed query, key and value projections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which no token sees a later one.

    Args:
        dim: width of a token.
        heads: number of heads, a divisor of `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (batch, length, dim) to tokens of the same shape."""
        batch, length = tokens.shape[0], tokens.shape[1]
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        query = query.view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        key = key.view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        value = value.view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended = attended.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim)
        result: torch.Tensor = self.proj(attended)
        return result


class DecoderBlock(nn.Module):
    """Pre-norm causal attention and a pre-norm MLP with GELU, each added to its input.

    Args:
        dim: width of a token.
        heads: number of attention heads, a divisor of `dim`.
        hidden: width inside the MLP.
        dropout: rate behind the attention and behind the MLP.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = CausalSelfAttention(dim, heads)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim), nn.Dropout(dropout))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (batch, length, dim) to tokens of the same shape."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens)))
        result: torch.Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class GPT(nn.Module):
    """Token and position embeddings, decoder blocks, a last norm, logits for the next token.

    Radford et al., "Language models are unsupervised multitask learners" (GPT-2), 2019.

    Args:
        vocabulary: number of tokens.
        context: the longest sequence.
        dim: width of a token.
        depth: number of decoder blocks.
        heads: number of attention heads, a divisor of `dim`.
        hidden: width inside each block's MLP.
        tied: whether the head shares the weight of the token embedding.
        dropout: rate behind the embedding and inside the blocks.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 64,
        context: int = 32,
        dim: int = 32,
        depth: int = 2,
        heads: int = 4,
        hidden: int = 128,
        tied: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.pos_embed = nn.Parameter(torch.empty(context, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(DecoderBlock(dim, heads, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map token ids (batch, length), integers, length <= context, to logits (batch, length, vocabulary)."""
        embedded = self.dropout(self.embed(tokens) + self.pos_embed[: tokens.shape[1]])
        logits: torch.Tensor = self.head(self.norm(self.blocks(embedded)))
        return logits


def gpt(*, width: int = 32, depth: int = 2, heads: int = 4, vocabulary: int = 64) -> GPT:
    """A causal language model on up to 32 tokens: `depth` blocks, tokens `width` wide."""
    return GPT(vocabulary=vocabulary, dim=width, depth=depth, heads=heads, hidden=4 * width)
