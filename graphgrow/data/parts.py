"""Data in three parts, whole in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Part:
    """Inputs (count, ...) and their targets, int64: classes (count,), or the next tokens (count, length)."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def images(self) -> torch.Tensor:
        """The inputs, by the name that a search knows them by."""
        return self.inputs

    @property
    def labels(self) -> torch.Tensor:
        """The targets, likewise."""
        return self.targets


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
