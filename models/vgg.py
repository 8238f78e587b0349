"""A plain convolutional net: stages of 3x3 convolutions, then flatten and two linear layers."""

from __future__ import annotations

import torch
from torch import nn


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each stage ended by a 2x2 max-pooling.

    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015
    (arXiv:1409.1556), with batch norm behind each convolution.

    Args:
        channels: channels of the image.
        image_size: height and width of the image, divisible by 2 ** len(widths).
        widths: for each stage, the width of each of its convolutions.
        hidden: width of the hidden linear layer.
        classes: number of logits.
        batch_norm: whether each convolution is followed by a batch norm; without it the convolutions have a bias.
        dropout: rate behind the hidden linear layer.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        image_size: int = 32,
        widths: tuple[tuple[int, ...], ...] = ((16,), (32,), (64, 64)),
        hidden: int = 64,
        classes: int = 10,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels
        for stage in widths:
            for next_width in stage:
                layers.append(nn.Conv2d(width, next_width, 3, padding=1, bias=not batch_norm))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(next_width))
                layers.append(nn.ReLU())
                width = next_width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        pixels = (image_size // 2 ** len(widths)) ** 2
        self.classifier = nn.Sequential(
            nn.Linear(width * pixels, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, image_size, image_size) to logits (batch, classes)."""
        maps = self.features(images)
        logits: torch.Tensor = self.classifier(torch.flatten(maps, 1))
        return logits


def vgg(*, width: int = 16, depth: int = 3, classes: int = 10) -> VGG:
    """A VGG on 3x32x32 images: `depth` stages, each twice as wide as the one before, two convolutions in the last."""
    widths = [(width * 2**stage,) for stage in range(depth - 1)]
    last = width * 2 ** (depth - 1)
    return VGG(widths=(*widths, (last, last)), classes=classes)
