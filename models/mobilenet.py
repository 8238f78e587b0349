"""A small MobileNetV2: inverted residuals with depthwise convolutions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class Stage(NamedTuple):
    """One stage of inverted residuals.

    Attributes:
        expansion: width inside a block, relative to the width that comes in.
        width: channels that go out.
        blocks: number of blocks.
        stride: stride of the first block.
    """

    expansion: int
    width: int
    blocks: int
    stride: int


def conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the resolution (up to its stride), batch norm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; added to the input where the shapes agree.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        expansion: width inside the block relative to `in_channels`; at 1 there is no expanding convolution.
        stride: stride of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_norm(in_channels, hidden, kernel=1))
        layers += [
            conv_norm(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        branch: torch.Tensor = self.layers(maps)
        return maps + branch if self.residual else branch


class MobileNet(nn.Module):
    """A stem, stages of inverted residuals, a 1x1 convolution, global average pooling, a linear head.

    Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018 (arXiv:1801.04381).

    Args:
        channels: channels of the image.
        stem: width of the first convolution.
        stages: the stages, each (expansion, width, blocks, stride).
        features: width of the last convolution.
        classes: number of logits.
        dropout: rate in front of the head.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        stem: int = 16,
        stages: tuple[tuple[int, int, int, int], ...] = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2)),
        features: int = 64,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = conv_norm(channels, stem, kernel=3)
        blocks: list[nn.Module] = []
        in_channels = stem
        for stage in map(Stage._make, stages):
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(InvertedResidual(in_channels, stage.width, stage.expansion, stride))
                in_channels = stage.width
        self.blocks = nn.Sequential(*blocks)
        self.last = conv_norm(in_channels, features, kernel=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        maps = self.last(self.blocks(self.stem(images)))
        features = torch.flatten(self.pool(maps), 1)
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits


def mobilenet(*, width: int = 16, depth: int = 2, classes: int = 10) -> MobileNet:
    """A MobileNetV2 on 3x32x32 images: two strided stages of `depth` blocks, 1.5 and 2 times `width` wide."""
    stages = ((1, width, 1, 1), (4, width * 3 // 2, depth, 2), (4, width * 2, depth, 2))
    return MobileNet(stem=width, stages=stages, features=width * 4, classes=classes)
