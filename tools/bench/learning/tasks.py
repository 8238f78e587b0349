"""What is learned, by which small and which big net, and for how many steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphgrow.models import GPT, ResNet


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        data: its name.
        options: of the data.
        small: builds the base.
        big: builds the reference.
        steps: of the big net from scratch; their FLOPs are the unit of all budgets.
        stages: growths from the small net's FLOPs to the big net's, each by the same factor.
        lr: of AdamW at its highest, the best of three for the big net (see tune.py).
        batch_size: of all nets.
    """

    data: str
    options: dict[str, Any]
    small: Callable[[], nn.Module]
    big: Callable[[], nn.Module]
    steps: int
    stages: int
    lr: float
    batch_size: int = 64


def pooled(*widths: int) -> nn.Module:
    """A ResNet that sees 3x32x32 images through a 2x2 average, which makes a run four times shorter."""
    return nn.Sequential(nn.AvgPool2d(2), ResNet(widths=widths, blocks=(1,) * len(widths)))


TASKS = {
    "digits": Task(
        "digits",
        {},
        lambda: ResNet(channels=1, widths=(3, 4), blocks=(1, 1)),
        lambda: ResNet(channels=1, widths=(12, 16), blocks=(1, 1)),
        steps=400,
        stages=4,
        lr=1e-2,
    ),
    "patterns": Task(
        "patterns",
        {"count": 4000, "held_out": 2000, "variants": 1, "noise": 0.7, "confused": 0.03},
        lambda: pooled(4, 8, 16),
        lambda: pooled(10, 20, 40),
        steps=600,
        stages=3,
        lr=1e-2,
    ),
    "text": Task(
        "text",
        {"length": 32, "most": 400_000},
        lambda: GPT(dim=32, depth=2, heads=2, hidden=32),
        lambda: GPT(dim=32, depth=2, heads=2, hidden=256),
        steps=800,
        stages=2,
        lr=3e-3,
    ),
}
