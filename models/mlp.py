"""A multilayer perceptron on flattened images."""

from __future__ import annotations

import torch
from torch import nn


class MLP(nn.Module):
    """Linear layers with ReLU between them, after the image is flattened.

    Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986.

    Args:
        channels: channels of the image.
        image_size: height and width of the image.
        hidden: width of each hidden layer.
        classes: number of logits.
        dropout: rate behind each hidden layer.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        image_size: int = 32,
        hidden: tuple[int, ...] = (64, 64),
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels * image_size * image_size
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), nn.ReLU(), nn.Dropout(dropout)]
            width = next_width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, image_size, image_size) to logits (batch, classes)."""
        features: torch.Tensor = self.layers(torch.flatten(images, 1))
        logits: torch.Tensor = self.head(features)
        return logits


def mlp(*, width: int = 64, depth: int = 2, classes: int = 10, channels: int = 3, image_size: int = 32) -> MLP:
    """An MLP on square images with `depth` hidden layers of `width` units."""
    return MLP(channels=channels, image_size=image_size, hidden=(width,) * depth, classes=classes)
