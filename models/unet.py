"""A small U-Net: an encoder, a decoder, and concatenations between the levels of the same resolution."""

from __future__ import annotations

import itertools

import torch
from torch import nn


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height, width)."""
        hidden = self.relu1(self.norm1(self.conv1(maps)))
        result: torch.Tensor = self.relu2(self.norm2(self.conv2(hidden)))
        return result


class UNet(nn.Module):
    """Per-pixel classification: max-pooling on the way down, transposed convolutions on the way up.

    Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015
    (arXiv:1505.04597), with padded convolutions and batch norm.

    Args:
        channels: channels of the image.
        widths: width of each level, the finest first.
        classes: number of logits of each pixel.
        dropout: rate in front of the head.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        widths: tuple[int, ...] = (8, 16, 32),
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        ins = (channels, *widths[:-1])
        self.down = nn.ModuleList(DoubleConv(before, after) for before, after in zip(ins, widths, strict=True))
        self.pool = nn.MaxPool2d(2)
        finer = list(itertools.pairwise(widths))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in finer)
        self.merge = nn.ModuleList(DoubleConv(2 * fine, fine) for fine, _ in finer)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes, height, width).

        Height and width are divisible by 2 ** (levels - 1).
        """
        maps = images
        kept: list[torch.Tensor] = []
        for level, encode in enumerate(self.down):
            maps = encode(maps if level == 0 else self.pool(maps))
            kept.append(maps)
        for enlarge, merge, skip in zip(self.up, self.merge, kept[-2::-1], strict=True):
            maps = merge(torch.cat([skip, enlarge(maps)], dim=1))
        logits: torch.Tensor = self.head(self.dropout(maps))
        return logits


def unet(*, width: int = 8, depth: int = 3, classes: int = 10) -> UNet:
    """A U-Net on 3x32x32 images: `depth` levels, each twice as wide as the finer one."""
    return UNet(widths=tuple(width * 2**level for level in range(depth)), classes=classes)
