"""Whether numbers are all alike, or all zero: most tensors show by their first entries that they are not."""

from __future__ import annotations

import torch

FEW = 32
"""Entries of a row that are looked at before the whole of it is."""


def holds_only(tensor: torch.Tensor, number: float) -> bool:
    """Whether every entry of a tensor is this number; NaN is none."""
    if tensor.numel() and bool(tensor[(0,) * tensor.dim()] != number):
        return False
    return bool((tensor == number).all())


def live_rows(rows: torch.Tensor) -> torch.Tensor:
    """Which rows hold anything that is not zero, NaN too: bool, shape (rows,), of a matrix (rows, entries)."""
    live = (rows[:, :FEW] != 0).any(1)
    doubtful = torch.nonzero(~live).flatten()
    if len(doubtful) and rows.shape[1] > FEW:
        live[doubtful] = (rows[doubtful] != 0).any(1)
    return live


def rows_at(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """A tensor as one row for each position of an axis, shape (size, rest); a view where it can be one."""
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
