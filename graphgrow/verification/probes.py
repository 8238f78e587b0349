"""The inputs that two networks are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.ir.inputs import InputSpec

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

SCALES = (1.0, 16.0, 1 / 16)  # of the inputs, for one batch size after the other


@dataclass(frozen=True)
class Probes:
    """The inputs that are compared on."""

    spec: InputSpec
    own: tuple[Any, ...] | None
    seed: int
    batch_sizes: tuple[int, ...]

    def drawn(self, mode: str, dtype: torch.dtype | None) -> list[Inputs]:
        """Several batch sizes and scales in eval mode, the example's in train mode, and the user's own.

        Where the example's batch size is 1, train mode begins with 2: batch norms want more than one value.
        """
        sizes: list[int | None] = [2, None] if mode == "train" and self.spec.batch_size == 1 else [None]
        if mode == "eval" and self.spec.batch_size is not None:
            sizes += [size for size in self.batch_sizes if size != self.spec.batch_size]
        probes = []
        for number, size in enumerate(sizes):
            scale = SCALES[number % len(SCALES)]
            sample = self.spec.sample(self.seed + number, size, dtype)
            probes.append(pytree.tree_map(lambda leaf, scale=scale: _scaled(leaf, scale), sample))
        if self.own is not None:
            probes.append((pytree.tree_map(lambda leaf: cast(leaf, dtype), self.own), {}))
        return probes


def cast(leaf: Any, dtype: torch.dtype | None) -> Any:
    """A tensor of floating point in another dtype; anything else as it is."""
    convertible = dtype is not None and isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.to(dtype) if convertible else leaf


def _scaled(leaf: Any, scale: float) -> Any:
    return leaf * scale if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
