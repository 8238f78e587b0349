"""Synthetic networks of a given number of nodes, for the question whether costs grow in proportion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

WIDTH = 8
BLOCK_LENGTH = 8


class Chain(nn.Module):
    """Linear and ReLU in turns: many groups, each with one writer and one reader."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(m for _ in range(nodes // 2) for m in (nn.Linear(WIDTH, WIDTH), nn.ReLU())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, WIDTH) to the same shape."""
        result: torch.Tensor = self.layers(x)
        return result


class Residual(nn.Module):
    """Pre-norm residual blocks on one stream: one group that every block reads and writes, over all the layer norms."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(nodes // 5)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, WIDTH) to the same shape."""
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        result: torch.Tensor = self.head(x)
        return result


class Dense(nn.Module):
    """Densely connected blocks of 8 layers: each layer reads the concatenation of all before it in its block."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.stem, self.relu = nn.Linear(WIDTH, WIDTH), nn.ReLU()
        of_block = 3 * BLOCK_LENGTH + 2  # a cat, a linear map and a ReLU for each layer; a cat and a linear map behind
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Linear(WIDTH * (i + 1), WIDTH) for i in range(BLOCK_LENGTH + 1))
            for _ in range(max(1, nodes // of_block))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, WIDTH) to the same shape."""
        x = self.stem(x)
        for block in self.blocks:
            features = [x]
            *layers, last = block.children()
            for layer in layers:
                features.append(self.relu(layer(torch.cat(features, -1))))
            x = last(torch.cat(features, -1))
        return x


class Concatenating(nn.Module):
    """x = cat([x, f(x)]) all the way: an axis has as many parts as the net is deep, and all together the square."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        depth = nodes // 3
        self.layers = nn.ModuleList(nn.Linear(WIDTH * (i + 1), WIDTH) for i in range(depth))
        self.relu, self.head = nn.ReLU(), nn.Linear(WIDTH * (depth + 1), WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, WIDTH) to the same shape."""
        for layer in self.layers:
            x = torch.cat([x, self.relu(layer(x))], -1)
        result: torch.Tensor = self.head(x)
        return result


@dataclass(frozen=True)
class Family:
    """A family of networks.

    Attributes:
        build: a network of about so many nodes.
        site: the group that is widened, given the names of all that can grow.
    """

    build: Callable[[int], nn.Module]
    site: Callable[[list[str]], str]


FAMILIES = {
    "chain": Family(Chain, lambda names: names[len(names) // 2]),
    "residual": Family(Residual, lambda _: "stem"),
    "dense": Family(Dense, lambda names: names[len(names) // 2]),
    "concatenating": Family(Concatenating, lambda names: names[len(names) // 2]),
}
