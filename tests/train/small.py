"""A small net on a small task, for the tests of growing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.train.grower import Grower

INPUTS = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, :3].prod(1) > 0).long() + 2 * (INPUTS[:, 3] > 0).long()


def net(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    middle = [nn.BatchNorm1d(6)] if norm else []
    return nn.Sequential(
        nn.Linear(6, 6), *middle, nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)
    )


def graph(norm: bool = False) -> Graph:
    return gg.trace(net(norm), INPUTS[:2])


def adam(of: Graph, lr: float = 1e-2) -> torch.optim.Adam:
    return torch.optim.Adam(of.module.parameters(), lr=lr)


def loss(module: nn.Module) -> torch.Tensor:
    return F.cross_entropy(module(INPUTS), TARGETS)


def epoch(grower: Grower, optimizer: torch.optim.Optimizer, **_: Any) -> float:
    """Three batches; the loss on everything afterwards."""
    grower.module.train()
    for inputs, targets in zip(INPUTS.split(32), TARGETS.split(32), strict=True):
        optimizer.zero_grad()
        with grower.observe():
            F.cross_entropy(grower.module(inputs), targets).backward()
        optimizer.step()
    grower.module.eval()
    with torch.no_grad():
        return float(loss(grower.module))
