"""A model with few sites, for what is asked of each of them."""

from __future__ import annotations

import torch
from torch import nn


def net() -> tuple[nn.Module, torch.Tensor]:
    """Two maps and what is between them, with example inputs."""
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(2, 4)
