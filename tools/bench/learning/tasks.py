"""What is learned, by which small and which big net, and for how many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from torch import nn

from graphgrow.models import GPT, ResNet

DEPENDS = (
    "graphgrow/data",
    "graphgrow/signals",
    "graphgrow/train",
    "graphgrow/search/training.py",
    "tools/bench/learning",
)
"""What a result depends on, beside the sources that every benchmark names."""


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
        how: what of `Method` (course.py) is otherwise, since it was chosen otherwise on the task's validation part.
        recipe: stages from the small net to the big one itself, for `progressive`; empty, it widens uniformly.
        policies: by which the small net is grown, by their names in run.py.
    """

    data: str
    options: dict[str, Any]
    small: Callable[[], nn.Module]
    big: Callable[[], nn.Module]
    steps: int
    stages: int
    lr: float
    batch_size: int = 64
    how: dict[str, Any] = field(default_factory=dict)
    recipe: tuple[tuple[str, ...], ...] = ()
    policies: tuple[str, ...] = ("dnm", "gradmax", "net2net", "progressive", "random", "noisy split")


def widened(groups: Sequence[str], sizes: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Stages that bring groups from one size to the next, half of what is new paired with the other half."""
    stages = []
    for old, new in pairwise(sizes):
        middle = new - (new - old) // 2
        stage = []
        for group in groups:
            stage.append(f"widen({group}, extra={middle - old})")
            if middle < new:
                stage.append(f"split({group}, units={list(range(old, old + new - middle))}, apart=true)")
        stages.append(tuple(stage))
    return tuple(stages)


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
        steps=1600,
        stages=2,
        lr=1e-2,
        how={"rounds": 16, "anew": True},
        recipe=widened(["blocks.0.mlp.0", "blocks.1.mlp.0"], (32, 112, 256)),
    ),
}
TASKS["text-deep"] = Task(
    "text",
    {"length": 32, "most": 400_000},
    lambda: GPT(dim=32, depth=2, heads=2, hidden=128),
    lambda: GPT(dim=32, depth=8, heads=2, hidden=128),
    steps=1600,
    stages=2,
    lr=1e-2,
    how={"rounds": 4, "anew": True},
    policies=("stack",),
)
# With the decay that is the big net's best, and so many steps that more bring it nothing.
TASKS["digits-long"] = replace(TASKS["digits"], steps=800, how={"weight_decay": 1.0, "rounds": 4})
TASKS["patterns-long"] = replace(TASKS["patterns"], steps=1200, how={"weight_decay": 1.0})
TASKS["text-long"] = replace(TASKS["text"], steps=6400)  # where more bring the big net nothing (plateau.py)
