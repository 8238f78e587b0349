"""A small convolutional net, and what is grown from it and damaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

import graphgrow as gg


def small_net(**changes: object) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip


def traced() -> gg.Graph:
    return gg.trace(small_net(), torch.randn(2, 3, 8, 8))


def damaged(change: Callable[[fx.GraphModule], object], mutations: list[str]) -> tuple[gg.Graph, gg.Graph]:
    graph = traced()
    grown = gg.apply(graph, mutations, share=False)
    with torch.no_grad():
        change(grown.module)
    return graph, grown
