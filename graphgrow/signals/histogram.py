"""Histograms of many units at once, streamed, over ranges that adapt to what is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from graphgrow.errors import SignalError

_FINEST = 2.0**-60  # width of a range in which nothing but zeros was seen
_BLOCK = 32_768  # samples that are counted at a time: what they need stays in a processor's cache
_NEAR = 1_024  # bins between zero and a range within which offset + scale * x places x to a ten-thousandth of a bin


class UnitHistograms:
    """One histogram for each unit, all updated by one pass over a batch.

    A range begins as that of the first batch. What lies outside doubles it, towards that side, as often as needed,
    and bins are merged in pairs: the counts are at any time those of an equal-width histogram of everything seen, and
    the range is less than twice what was seen.

    Args:
        units: number of units.
        bins: of each histogram, even.
        device: where the counts are kept.
    """

    def __init__(self, units: int, bins: int = 64, device: torch.device | str = "cpu") -> None:
        if bins < 2 or bins % 2:
            raise SignalError(f"bins={bins}: an even number from 2 on is wanted, since bins are merged in pairs")
        self.bins = bins
        self.samples = 0
        # A guard bin at each end takes what rounding puts next to the range; without it that would be another unit's.
        self._counts = torch.zeros(units, bins + 2, dtype=torch.int32, device=device)
        self._first = (torch.arange(units, device=device) * (bins + 2) + 1).float()
        self._low = torch.zeros(units, device=device)
        self._width = torch.zeros(units, device=device)
        self._scale = torch.zeros(units, device=device)  # bins for each unit of value
        self._offset: torch.Tensor | None = None  # the bins' place for zero, where it is near enough to the ranges
        self._scratch: _Scratch | None = None
        self._views: _Views | None = None
        self._extremes = torch.tensor([[math.inf], [-math.inf]], device=device).repeat(1, units)  # lowest, highest

    @property
    def lowest(self) -> torch.Tensor:
        """The lowest value of each unit, (units,); infinity before the first batch."""
        return self._extremes[0]

    @property
    def highest(self) -> torch.Tensor:
        """The highest value of each unit, (units,); minus infinity before the first batch."""
        return self._extremes[1]

    def update(self, rows: torch.Tensor) -> None:
        """Count one batch of shape (samples, units), floating-point; from the first batch on all is of its type.

        Raises:
            SignalError: if a value is not finite.
        """
        if self.samples == 0:
            rows = rows if rows.dtype == torch.float64 else rows.float()
            self._begin(rows.amin(0), rows.amax(0))
        if rows.dtype != self._low.dtype:
            rows = rows.to(self._low.dtype)
        seen, views = self._extremes, self._views
        if views is None or views.counts is not self._counts or views.extremes is not seen:
            views = self._views = _Views.of(self._counts, seen)
        torch.amin(rows, 0, out=views.low)
        torch.amax(rows, 0, out=views.high)
        torch.minimum(views.lowest, views.low, out=views.low)  # NaN stays NaN
        torch.maximum(views.highest, views.high, out=views.high)
        if not torch.equal(seen, views.batch):
            _refuse_infinite(views.low, views.high)
            self._widen(views.low, views.high)
            seen.copy_(views.batch)
        samples = len(rows)
        for part in (rows,) if samples <= views.block else torch.split(rows, views.block):
            self._count(part, views.flat)
        self.samples += samples

    @property
    def counts(self) -> torch.Tensor:
        """Samples in each bin, int64 of shape (units, bins)."""
        counts = self._counts[:, 1:-1].long()
        counts[:, 0] += self._counts[:, 0]
        counts[:, -1] += self._counts[:, -1]
        return counts

    @property
    def edges(self) -> torch.Tensor:
        """The bins' edges, of shape (units, bins + 1)."""
        steps = torch.linspace(0, 1, self.bins + 1, dtype=self._low.dtype, device=self._low.device)
        return self._low[:, None] + self._width[:, None] * steps

    def span(self) -> torch.Tensor:
        """How many bins there are from the first to the last that holds a sample, int64 of shape (units,)."""
        held = self.counts > 0
        first = held.int().argmax(1)
        last = self.bins - 1 - held.flip(1).int().argmax(1)
        return last - first + 1

    def entropy(self) -> torch.Tensor:
        """Shannon entropy of each unit's bins over the log of the bins that its samples span, in [0, 1], (units,).

        The plug-in estimate is too low by about (m - 1) / (2 n) nats for n samples in m bins, which is added (Miller,
        "Note on the bias of information estimates", 1955). A constant unit has 0.
        """
        counts = self.counts.double()
        shares = counts / max(self.samples, 1)
        plugin = -torch.special.xlogy(shares, shares).sum(1)
        occupied = (counts > 0).sum(1)
        corrected = plugin + (occupied - 1).clamp(min=0) / (2 * max(self.samples, 1))
        most = self.span().double().log()
        return torch.where(most > 0, corrected / most.clamp(min=1e-12), torch.zeros(())).clamp(0, 1)

    def saturation(self) -> torch.Tensor:
        """Share of samples in the outermost occupied bin at either end, in [0, 1], (units,); 1 for a constant unit."""
        counts = self.counts
        held = counts > 0
        first = held.int().argmax(1, keepdim=True)
        last = self.bins - 1 - held.flip(1).int().argmax(1, keepdim=True)
        low, high = counts.gather(1, first)[:, 0], counts.gather(1, last)[:, 0]
        outer = torch.where((first == last)[:, 0], low, low + high)
        return outer.double() / max(self.samples, 1)

    def constant(self) -> torch.Tensor:
        """Which units have shown one value alone, up to rounding, bool of shape (units,)."""
        reach = torch.maximum(self.lowest.abs(), self.highest.abs())
        return self.highest - self.lowest <= 1e-6 * reach

    def _begin(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Let the ranges be those of the first batch."""
        _refuse_infinite(low, high)
        self._low = low
        self._width = torch.maximum(high - low, (low.abs() * 2.0**-20).clamp(min=_FINEST))
        self._first = self._first.to(low.dtype)
        self._extremes = torch.stack([low, high])
        self._place_ranges()

    def _place_ranges(self) -> None:
        self._scale = self.bins / self._width
        start = self._low * self._scale
        self._offset = self._first - start if bool((start.abs() <= _NEAR).all()) else None

    def _widen(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Double the ranges until they hold the new extremes, upwards first, and merge their bins."""
        up = _doublings(high - self._low, self._width)
        width = torch.ldexp(self._width, up)
        down = _doublings(self._low + width - low, width)
        wider = torch.ldexp(width, down)
        counts = self.counts
        place = torch.arange(self.bins, device=counts.device).expand_as(counts)
        place = place >> up[:, None].clamp(max=32)
        place = self.bins - 1 - ((self.bins - 1 - place) >> down[:, None].clamp(max=32))
        self._counts.zero_()
        self._counts[:, 1:-1].scatter_add_(1, place, counts.int())
        self._low, self._width = self._low + (width - wider), wider
        self._place_ranges()

    def _count(self, rows: torch.Tensor, counts: torch.Tensor) -> None:
        """Count samples that are all within the ranges; the counts are of one axis."""
        scratch = self._scratch
        if scratch is None or scratch.samples != len(rows):
            scratch = self._scratch = _Scratch.of(rows, self._scale.dtype)
        if self._offset is None:
            torch.sub(rows, self._low, out=scratch.place)
            torch.addcmul(self._first, scratch.place, self._scale, out=scratch.place)
        else:
            torch.addcmul(self._offset, rows, self._scale, out=scratch.place)
        scratch.index.copy_(scratch.narrow.copy_(scratch.place))
        counts.scatter_add_(0, scratch.flat, scratch.ones)


@dataclass(frozen=True, eq=False)
class _Views:
    """Views that every batch needs, made once: with few samples, making them takes as long as counting.

    Attributes:
        block: samples of each unit that are counted at a time.
        counts: of the histograms.
        flat: the same, of one axis.
        extremes: of the histograms, (2, units).
        lowest: the first row of it.
        highest: the second row of it.
        batch: room for those of a batch and all before, (2, units).
        low: the first row of it.
        high: the second row of it.
    """

    block: int
    counts: torch.Tensor
    flat: torch.Tensor
    extremes: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor
    batch: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    @staticmethod
    def of(counts: torch.Tensor, extremes: torch.Tensor) -> _Views:
        """Of these counts and extremes."""
        batch = torch.empty_like(extremes)
        block = max(1, _BLOCK // max(len(counts), 1))
        return _Views(block, counts, counts.view(-1), extremes, extremes[0], extremes[1], batch, batch[0], batch[1])


@dataclass(frozen=True, eq=False)
class _Scratch:
    """Room for the bins of one block of samples, used again for the next.

    Attributes:
        samples: of each unit.
        place: in which bin, with what is beyond the point, (samples, units).
        narrow: likewise, int32: processors make int64 of floating-point numbers one at a time, but not of int32.
        index: likewise, int64.
        flat: the same, of one axis.
        ones: int32, one for each entry.
    """

    samples: int
    place: torch.Tensor
    narrow: torch.Tensor
    index: torch.Tensor
    flat: torch.Tensor
    ones: torch.Tensor

    @staticmethod
    def of(rows: torch.Tensor, dtype: torch.dtype) -> _Scratch:
        """Room for samples of this shape, where they are."""
        place, narrow, index = (
            torch.empty(rows.shape, dtype=kind, device=rows.device) for kind in (dtype, torch.int32, torch.int64)
        )
        ones = torch.ones(rows.numel(), dtype=torch.int32, device=rows.device)
        return _Scratch(len(rows), place, narrow, index, index.view(-1), ones)


def _doublings(needed: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """How often a width has to double to reach what is needed, int64."""
    return (needed / width).clamp(min=1).log2().ceil().to(torch.int64)


def _refuse_infinite(low: torch.Tensor, high: torch.Tensor) -> None:
    if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
        raise SignalError("activations hold NaN or infinity; look at the loss before growing anything")
