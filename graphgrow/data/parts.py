"""Data in three parts, whole in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from graphgrow.errors import DataError


@dataclass(frozen=True)
class Part:
    """Inputs (count, ...) and their targets, int64: classes (count,), or the next tokens (count, length)."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(f"{len(self.inputs)} inputs have {len(self.targets)} targets, wanted one for each")

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Data:
    """The three parts of some data.

    Attributes:
        training: what the weights are fitted to.
        validation: decides when to grow and when training stops.
        test: measures accuracy, and decides nothing.
        classes: number of classes, or tokens.
        source: what it is, in words.
    """

    training: Part
    validation: Part
    test: Part
    classes: int
    source: str


def batches(part: Part, size: int, seed: int, done: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Mini-batches of inputs and targets without end, each epoch in another order, behind the first `done`."""
    for chosen in itertools.islice(_orders(len(part), size, seed), done, None):
        yield part.inputs[chosen], part.targets[chosen]


def _orders(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """The places of the samples of each mini-batch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)  # type: ignore[no-untyped-call]
