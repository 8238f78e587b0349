"""A small vision transformer: patches, a class token, pre-norm encoder blocks."""

from __future__ import annotations

import torch
from torch import nn


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and a pre-norm MLP with GELU, each added to its input.

    Args:
        dim: width of a token.
        heads: number of attention heads, a divisor of `dim`.
        hidden: width inside the MLP.
        dropout: rate behind the attention and behind each linear layer of the MLP.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (batch, length, dim) to tokens of the same shape."""
        normed = self.norm1(tokens)
        attended, _ = self.attention(normed, normed, normed, need_weights=False)
        tokens = tokens + self.dropout(attended)
        result: torch.Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class ViT(nn.Module):
    """Image patches and a class token through an encoder; the class token is read out.

    Dosovitskiy et al., "An image is worth 16x16 words", 2021 (arXiv:2010.11929).

    Args:
        channels: channels of the image.
        image_size: height and width of the image, a multiple of `patch`.
        patch: height and width of a patch.
        dim: width of a token.
        depth: number of encoder blocks.
        heads: number of attention heads, a divisor of `dim`.
        hidden: width inside each block's MLP.
        classes: number of logits.
        dropout: rate behind the embedding and inside the blocks.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        image_size: int = 32,
        patch: int = 8,
        dim: int = 32,
        depth: int = 3,
        heads: int = 4,
        hidden: int = 64,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        length = (image_size // patch) ** 2 + 1
        self.patch_embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, length, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(dim, heads, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, image_size, image_size) to logits (batch, classes)."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        class_token = self.class_token.expand(images.shape[0], -1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self.pos_embed
        tokens = self.norm(self.blocks(self.dropout(tokens)))
        logits: torch.Tensor = self.head(tokens[:, 0])
        return logits


def vit(*, width: int = 32, depth: int = 3, heads: int = 4, classes: int = 10) -> ViT:
    """A vision transformer on 3x32x32 images: 8x8 patches, `depth` blocks, tokens `width` wide."""
    return ViT(dim=width, depth=depth, heads=heads, hidden=2 * width, classes=classes)
