"""Residual networks in the CIFAR style: a 3x3 stem, basic blocks, no max-pooling."""

from __future__ import annotations

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the block's input.

    Where the width or the resolution changes, the input passes through a 1x1 convolution with batch norm.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        stride: stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        branch = self.relu1(self.bn1(self.conv1(maps)))
        branch = self.bn2(self.conv2(branch))
        result: torch.Tensor = self.relu2(branch + self.shortcut(maps))
        return result


class ResNet(nn.Module):
    """A stem, stages of basic blocks, global average pooling, a linear head.

    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016 (arXiv:1512.03385), section 4.2,
    with projection shortcuts (option B).

    Args:
        channels: channels of the image.
        widths: width of each stage; the resolution halves in front of each stage but the first.
        blocks: number of blocks of each stage.
        classes: number of logits.
        dropout: rate in front of the head.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        widths: tuple[int, ...] = (16, 32, 64),
        blocks: tuple[int, ...] = (2, 2, 2),
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"widths has {len(widths)} stages and blocks has {len(blocks)}; give both the same length")
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        in_channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            members: list[nn.Module] = []
            for stride in strides:
                members.append(BasicBlock(in_channels, width, stride))
                in_channels = width
            stages.append(nn.Sequential(*members))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(in_channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        maps = self.stages(self.relu(self.bn(self.stem(images))))
        features = torch.flatten(self.pool(maps), 1)
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits


def resnet(*, width: int = 16, depth: int = 2, classes: int = 10, channels: int = 3) -> ResNet:
    """A ResNet on images of any size: three stages of `depth` blocks, `width`, twice and four times as wide.

    In the paper's counting of layers it is ResNet-(6 depth + 2).
    """
    widths = (width, 2 * width, 4 * width)
    return ResNet(channels=channels, widths=widths, blocks=(depth,) * 3, classes=classes)
