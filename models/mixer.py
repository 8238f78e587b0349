"""A small MLP-Mixer: one MLP over the patches, one over the channels, in turn."""

from __future__ import annotations

import torch
from torch import nn


def mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Linear, GELU, linear, back to the same width."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(dropout))


class MixerBlock(nn.Module):
    """A pre-norm MLP over the patches, then one over the channels, each added to its input.

    Args:
        length: number of patches.
        dim: channels of a patch.
        token_hidden: width inside the MLP over the patches.
        channel_hidden: width inside the MLP over the channels.
        dropout: rate behind each MLP.
    """

    def __init__(self, length: int, dim: int, token_hidden: int, channel_hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_mlp = mlp(length, token_hidden, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.channel_mlp = mlp(dim, channel_hidden, dropout)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (batch, length, dim) to patches of the same shape."""
        mixed = self.token_mlp(self.norm1(patches).transpose(1, 2)).transpose(1, 2)
        patches = patches + mixed
        result: torch.Tensor = patches + self.channel_mlp(self.norm2(patches))
        return result


class Mixer(nn.Module):
    """Image patches through mixer blocks, averaged over the patches, a linear head.

    Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", 2021 (arXiv:2105.01601).

    Args:
        channels: channels of the image.
        image_size: height and width of the image, a multiple of `patch`.
        patch: height and width of a patch.
        dim: channels of a patch.
        depth: number of blocks.
        token_hidden: width inside the MLPs over the patches.
        channel_hidden: width inside the MLPs over the channels.
        classes: number of logits.
        dropout: rate behind each MLP.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        image_size: int = 32,
        patch: int = 8,
        dim: int = 32,
        depth: int = 3,
        token_hidden: int = 16,
        channel_hidden: int = 64,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        length = (image_size // patch) ** 2
        self.patch_embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.blocks = nn.Sequential(
            *(MixerBlock(length, dim, token_hidden, channel_hidden, dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, image_size, image_size) to logits (batch, classes)."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        features = self.norm(self.blocks(patches)).mean(dim=1)
        logits: torch.Tensor = self.head(features)
        return logits


def mixer(*, width: int = 32, depth: int = 3, classes: int = 10) -> Mixer:
    """An MLP-Mixer on 3x32x32 images: 8x8 patches, `depth` blocks, patches `width` channels wide."""
    return Mixer(dim=width, depth=depth, token_hidden=width // 2, channel_hidden=2 * width, classes=classes)
