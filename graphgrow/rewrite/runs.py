"""Moving positions of an axis in runs of neighbours, and drawing numbers in pieces: what growing a large tensor costs.

`index_select` and `index_copy_` move entry by entry along inner axes, and a temporary of the whole size costs more
than the arithmetic on it. Old units keep their places at the front, so that a few slices are nearly always enough.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from graphgrow.ir.doubles import parts

MOST_RUNS = 64
"""More runs than this are moved entry by entry."""

PIECE = 2**16
"""Numbers in one piece: their 256 KiB stay in a core's cache."""

_BLOCK = 16


class Run(NamedTuple):
    """Neighbouring positions that come from neighbouring ones."""

    target: int
    source: int
    length: int


def runs(targets: torch.Tensor, sources: torch.Tensor) -> list[Run] | None:
    """The longest runs along which both positions go up by one.

    Args:
        targets: positions in the new axis, int64, shape (n,).
        sources: for each of them the position it comes from, the same shape.

    Returns:
        The runs in order; None where there are more than `MOST_RUNS`.
    """
    if not len(targets):
        return []
    breaks = torch.nonzero((targets.diff() != 1) | (sources.diff() != 1)).flatten() + 1
    if len(breaks) >= MOST_RUNS:
        return None
    starts = [0, *breaks.tolist()]
    stops = [*starts[1:], len(targets)]
    return [Run(int(targets[a]), int(sources[a]), b - a) for a, b in zip(starts, stops, strict=True)]


def spread(old: torch.Tensor, axis: int, source: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
    """A tensor whose entry `i` along an axis is the old entry `source[i]`, where `placed[i]`; others are left unset.

    Args:
        old: any tensor; it is not written to.
        axis: of the tensor.
        source: int64, shape (new size,).
        placed: bool, shape (new size,).
    """
    targets = torch.nonzero(placed).flatten()
    found = runs(targets, source[targets])
    if found is None:
        return old.index_select(axis, source.to(old.device))
    shape = list(old.shape)
    shape[axis] = len(source)
    new = old.new_empty(shape)
    for run in found:
        new.narrow(axis, run.target, run.length).copy_(old.narrow(axis, run.source, run.length))
    return new


def assign(new: torch.Tensor, axis: int, where: torch.Tensor, values: torch.Tensor | float) -> None:
    """Set the entries at some positions of an axis.

    Args:
        new: written to.
        axis: of the tensor.
        where: rising positions, int64, shape (n,).
        values: one number for all; or a tensor of the shape of `new` but for the axis, which has size n or 1.
    """
    found = runs(where, torch.arange(len(where)))
    if found is None and isinstance(values, torch.Tensor):
        shape = list(new.shape)
        shape[axis] = len(where)
        new.index_copy_(axis, where.to(new.device), values.to(new.device, new.dtype).expand(shape).contiguous())
        return
    if found is None:
        new.index_fill_(axis, where.to(new.device), values)
        return
    for run in found:
        part = new.narrow(axis, run.target, run.length)
        if isinstance(values, torch.Tensor):
            part.copy_(values if values.shape[axis] == 1 else values.narrow(axis, run.source, run.length))
        else:
            part.fill_(values)


def draw_normal(into: torch.Tensor, deviation: float, generator: torch.Generator) -> None:
    """Fill a tensor with normal numbers of mean 0, drawn in float32 on the CPU piece by piece, then cast and moved.

    Complex numbers have both parts drawn, each of that deviation.

    They are the numbers of one `torch.randn` of the whole shape: torch makes normal numbers in blocks of 16, so that
    pieces of whole blocks go on where the one before ended.
    """
    into = parts(into)
    if into.is_contiguous():
        into = into.view(-1)
    width = into[:1].numel()
    if not width:
        return
    step = max(PIECE // width // _BLOCK, 1) * _BLOCK
    start = 0
    while start < len(into):
        stop = min(start + step, len(into))
        if (len(into) - stop) * width < _BLOCK:  # fewer are drawn in another way
            stop = len(into)
        part = into[start:stop]
        part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float32).mul_(deviation))
        start = stop


def deviation_of(tensor: torch.Tensor) -> float:
    """The standard deviation over all entries (the parts of complex ones), in float64 without a copy of the whole."""
    flat = parts(tensor).reshape(-1)
    count = max(len(flat), 1)
    pieces = [flat[start : start + PIECE] for start in range(0, len(flat), PIECE)]
    mean = sum(float(piece.sum(dtype=torch.float64)) for piece in pieces) / count
    squares = sum(float((piece.to(torch.float64) - mean).square_().sum()) for piece in pieces)
    return math.sqrt(squares / count)
