"""A model and data for searches that take no time."""

from __future__ import annotations

import torch
from torch import nn

from graphgrow.data.parts import Data, Part


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))


class Twice(nn.Module):
    """Calls one activation twice, in place, as torchvision's residual blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(16, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.relu(self.first(x.flatten(1)))
        answer: torch.Tensor = self.head(self.relu(self.second(before) + before))
        return answer


class TwoWays(nn.Sequential):
    """Puts out more in train mode."""

    def forward(self, x: torch.Tensor) -> object:
        answer = super().forward(x)
        return (answer, answer.sort().values) if self.training else answer


def two_ways() -> TwoWays:
    return TwoWays(nn.Flatten(), nn.Linear(16, 3))


def data() -> Data:
    generator = torch.Generator().manual_seed(3)

    def part(count: int) -> Part:
        images = torch.randn(count, 1, 4, 4, generator=generator)
        return Part(images, images.flatten(1)[:, :3].argmax(1))

    return Data(part(48), part(24), part(24), classes=3, source="random images")


def foreign() -> object:
    """No data."""
    return [1, 2]
