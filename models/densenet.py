"""A small DenseNet: each layer reads the concatenation of all layers before it."""

from __future__ import annotations

import torch
from torch import nn


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 convolution, batch norm, ReLU, 3x3 convolution; the result is appended to the input.

    Args:
        in_channels: channels that come in.
        growth: channels that the layer adds.
        bottleneck: width of the 1x1 convolution relative to `growth`.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int) -> None:
        super().__init__()
        hidden = growth * bottleneck
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, growth, 3, padding=1, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, height, width) to (batch, in_channels + growth, height, width)."""
        hidden = self.conv1(self.relu1(self.norm1(maps)))
        fresh = self.conv2(self.relu2(self.norm2(hidden)))
        return torch.cat([maps, fresh], dim=1)


def transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """Batch norm, ReLU, 1x1 convolution, and an average pooling that halves the resolution."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.AvgPool2d(2),
    )


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between them, global average pooling, a linear head.

    Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks", 2017 (arXiv:1608.06993),
    the BC variant: bottlenecks, and transitions that halve the width.

    Args:
        channels: channels of the image.
        growth: channels that each layer adds; the stem has twice as many.
        blocks: number of layers of each dense block.
        bottleneck: width of the 1x1 convolutions relative to `growth`.
        classes: number of logits.
        dropout: rate in front of the head.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        growth: int = 8,
        blocks: tuple[int, ...] = (3, 3, 3),
        bottleneck: int = 4,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        for block, count in enumerate(blocks):
            if block > 0:
                layers.append(transition(width, width // 2))
                width //= 2
            for _ in range(count):
                layers.append(DenseLayer(width, growth, bottleneck))
                width += growth
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        maps = self.relu(self.norm(self.layers(self.stem(images))))
        features = torch.flatten(self.pool(maps), 1)
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits


def densenet(*, width: int = 8, depth: int = 3, classes: int = 10) -> DenseNet:
    """A DenseNet on 3x32x32 images: three blocks of `depth` layers, each adding `width` channels."""
    return DenseNet(growth=width, blocks=(depth,) * 3, classes=classes)
