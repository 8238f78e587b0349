"""A small model, and what of it and its optimizer must not change."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


IMAGE = torch.zeros(2, 3, 8, 8)
ROWS = torch.linspace(-1.0, 2.0, 12).view(4, 3)


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    slots = [id(p) for group in optimizer.param_groups for p in group["params"]]
    return [
        [t.detach().clone() for t in tensors],
        [t.clone() for t in states],
        slots,
        [m.training for m in model.modules()],
    ]


def same(first: list[Any], second: list[Any]) -> bool:
    tensors = all(
        len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(first[:2], second[:2], strict=True)
    )
    return tensors and first[2:] == second[2:]
