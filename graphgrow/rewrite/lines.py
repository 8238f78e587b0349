"""Lines along an axis: positions that differ in the unit of a space alone, and the means of each of them."""

from __future__ import annotations

import torch

from graphgrow.ir.doubles import in_double, of_kind
from graphgrow.ir.positions import Units, axis_map
from graphgrow.ir.terms import Space, Term


def lines_along(term: Term, space: Space) -> torch.Tensor:
    """For each position of an axis that of the first unit in its line, int64, shape (size,).

    An axis that is the space itself is one line; heads x width has one over the width for each head.
    """
    return axis_map(term, Units(space, torch.zeros(space.size, dtype=torch.int64))).source


def line_means(
    tensor: torch.Tensor, axis: int, lines: torch.Tensor, kept: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """For each of some positions the mean of the entries that are kept in its line.

    Means are taken in float64, so that they are the mean to the last bit of the narrower type.

    Args:
        tensor: of which they are taken.
        axis: along which the lines lie.
        lines: of its positions.
        kept: whether the entries at a position count, bool, shape (size,).
        wanted: positions, int64.
    """
    floating = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    dtype = of_kind(torch.float64, tensor.dtype) if floating else tensor.dtype
    first, place = torch.unique(lines, return_inverse=True)
    at = torch.nonzero(kept).flatten()
    entries = tensor if bool(kept.all()) else tensor.index_select(axis, at.to(tensor.device))
    if len(first) == 1:
        return entries.mean(axis, keepdim=True, dtype=dtype)
    shape = [len(first) if i == axis else size for i, size in enumerate(tensor.shape)]
    sums = tensor.new_zeros(shape, dtype=dtype).index_add_(axis, place[at].to(tensor.device), entries.to(dtype))
    counts = place[at].bincount(minlength=len(first)).reshape([-1 if i == axis else 1 for i in range(tensor.dim())])
    means: torch.Tensor = sums / counts.to(tensor.device)
    return means.index_select(axis, place[wanted].to(tensor.device))


def weighted(tensor: torch.Tensor, axis: int, weights: torch.Tensor) -> torch.Tensor:
    """A tensor whose entries are weighted along an axis, wide.

    Args:
        tensor: what is weighted.
        axis: along which.
        weights: by position, float64, shape (size,).
    """
    return in_double(tensor) * weights.to(tensor.device).reshape([-1 if i == axis else 1 for i in range(tensor.dim())])
