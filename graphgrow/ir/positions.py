"""Where the units of a growing or shrinking space lie along an axis whose term holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from graphgrow.ir.cells import cells_along, told_apart
from graphgrow.ir.terms import Concat, Product, Space, Term, normal, occurs, product


@dataclass(frozen=True)
class Units:
    """How one space grows: new unit `i` stems from the old unit `source[i]`.

    The old units keep their places at the front, so `source` begins with 0, 1, ..., n - 1. For appended units
    the source is 0, whose numbers they have in tables.
    """

    space: Space
    source: torch.Tensor

    @classmethod
    def appended(cls, space: Space, extra: int) -> Units:
        """`extra` new units behind the old ones."""
        return cls(space, torch.cat([torch.arange(space.size), torch.zeros(extra, dtype=torch.int64)]))

    @classmethod
    def copied(cls, space: Space, copies: int) -> Units:
        """Every unit so many times, the old ones counted."""
        return cls(space, torch.arange(space.size).repeat(copies))

    @property
    def old_size(self) -> int:
        """Units before."""
        return self.space.size

    @property
    def new_size(self) -> int:
        """Units after."""
        return len(self.source)


@dataclass(frozen=True)
class Removal:
    """How one space shrinks: old unit `i` is the new unit `heirs[i]`, or is gone where that is -1.

    Several old units may have one heir: copies that are merged. New units are numbered in the order of the first old
    unit of each.
    """

    space: Space
    heirs: torch.Tensor

    @classmethod
    def dropping(cls, space: Space, units: Iterable[int]) -> Removal:
        """The removal of some units."""
        kept = torch.ones(space.size, dtype=torch.bool)
        kept[list(units)] = False
        return cls(space, torch.where(kept, kept.cumsum(0) - 1, -1))

    @classmethod
    def merging(cls, space: Space, into: Mapping[int, int]) -> Removal:
        """The removal of units that are copies: each goes into another, which stays."""
        kept = torch.ones(space.size, dtype=torch.bool)
        kept[list(into)] = False
        heirs = kept.cumsum(0) - 1
        heirs[list(into)] = heirs[list(into.values())]
        return cls(space, heirs)

    @property
    def new_size(self) -> int:
        """Units that are left."""
        return int(self.heirs.max()) + 1

    @property
    def gone(self) -> torch.Tensor:
        """The old units that are gone without an heir."""
        return torch.nonzero(self.heirs < 0).flatten()


@dataclass(frozen=True)
class Shrinkage:
    """How an axis shrinks with a space.

    Attributes:
        heirs: for each old position the new one, -1 where it is gone, int64, shape (old size,).
        occurrence: which occurrence of the space within the term holds the old position (-1: none of them).
    """

    heirs: torch.Tensor
    occurrence: torch.Tensor

    @property
    def first(self) -> torch.Tensor:
        """For each new position the first old one that it comes from."""
        count = int(self.heirs.max()) + 1
        positions = torch.arange(len(self.heirs))
        return positions.new_full((count,), len(self.heirs)).scatter_reduce(
            0, self.heirs.clamp(min=0), positions.masked_fill(self.heirs < 0, len(self.heirs)), "amin"
        )


@dataclass(frozen=True)
class AxisMap:
    """How an axis grows with a space.

    Attributes:
        source: for each new position the old position it stems from, int64, shape (new size,).
        added: True at the positions that are new, bool, shape (new size,).
        occurrence: which occurrence of the space within the term holds the position (-1: none of them).
        unit: which new unit of the space lies at the position (-1: none).
    """

    source: torch.Tensor
    added: torch.Tensor
    occurrence: torch.Tensor
    unit: torch.Tensor

    @property
    def kept(self) -> torch.Tensor:
        """The positions of the old units, in their old order: the projection P."""
        return torch.nonzero(~self.added).flatten()

    @property
    def uniform(self) -> bool:
        """Whether every old position has the same number of copies, so that means over the axis stay as they are."""
        counts = torch.bincount(self.source)
        return bool((counts == counts[0]).all())


@dataclass(frozen=True)
class Recurring:
    """Kept positions along an axis whose slowest factors are sizes of the inputs: the same in every period.

    Attributes:
        kept: within one period, where the old positions are.
        period: how many positions a period has.
    """

    kept: torch.Tensor
    period: int

    def along(self, size: int) -> torch.Tensor:
        """The kept positions along an axis of that size; -1, gone, stays -1."""
        starts = torch.arange(size // self.period) * self.period
        return torch.where(self.kept < 0, -1, starts[:, None] + self.kept).flatten()


Kept = torch.Tensor | Recurring


def positions_along(kept: Kept, size: int) -> torch.Tensor:
    """The places along an axis that has this size now."""
    return kept.along(size) if isinstance(kept, Recurring) else kept


def kept_positions(term: Term, units: Units) -> Kept:
    """Where the old positions of an axis are after growth, whatever sizes the inputs have."""
    inner = _behind_inputs(term)
    if inner is None:
        return axis_map(term, units).kept
    return Recurring(axis_map(inner, units).kept, grown_size(inner, {units.space: units.new_size}))


def kept_heirs(term: Term, removal: Removal) -> Kept:
    """Where the old positions of an axis are after a removal (-1: gone), whatever sizes the inputs have."""
    inner = _behind_inputs(term)
    if inner is None:
        return shrinkage(term, removal).heirs
    return Recurring(shrinkage(inner, removal).heirs, grown_size(inner, {removal.space: removal.new_size}))


def _behind_inputs(term: Term) -> Term | None:
    """A product without its slowest factors that are frozen; None where there are none, or nothing else.

    Of a concatenation (the boxes of several maps, one after the other) it is what its parts have in common.
    """
    term = normal(term)
    if isinstance(term, Concat):
        first, *others = map(_behind_inputs, term.parts)
        return first if all(other == first for other in others) else None
    factors = list(term.factors) if isinstance(term, Product) else []
    count = len(factors)
    while factors and isinstance(factors[0], Space) and factors[0].frozen is not None:
        del factors[0]
    return product(factors) if factors and len(factors) < count else None


def occurrences(term: Term, space: Space) -> int:
    """How often the space occurs in a term, cell by cell; each occurrence has a fill state of its own."""
    return len(cells_along(term, space))


def grown_size(term: Term, sizes: Mapping[Space, int]) -> int:
    """The size of a term when the spaces given have other sizes than today, larger or smaller."""
    term = normal(term)
    if isinstance(term, Space):
        return sizes.get(term, term.size)
    if isinstance(term, Concat):
        return sum(grown_size(part, sizes) for part in term.parts)
    size = 1
    for factor in term.factors:
        size *= grown_size(factor, sizes)
    return size


def present_size(term: Term) -> int:
    """The size of a term today; `term.size` is that of when it was made, which growth in place leaves behind."""
    return grown_size(term, {})


def axis_map(term: Term, units: Units) -> AxisMap:
    """The map of positions along an axis with this term, when the units grow."""
    return _map(normal(term), units, 0)


def shrinkage(term: Term, removal: Removal) -> Shrinkage:
    """What becomes of the positions along an axis with this term, when units are removed."""
    present = axis_map(term, Units(removal.space, torch.arange(removal.space.size)))
    return Shrinkage(_heirs(normal(term), removal), present.occurrence)


def _heirs(term: Term, removal: Removal) -> torch.Tensor:
    if isinstance(term, Space):
        return removal.heirs if term is removal.space else torch.arange(term.size)
    sizes = {removal.space: removal.new_size}
    if isinstance(term, Concat):
        parts, offset = [], 0
        for part in term.parts:
            inner = _heirs(part, removal)
            parts.append(torch.where(inner < 0, -1, inner + offset))
            offset += grown_size(part, sizes)
        return torch.cat(parts)
    result = torch.zeros(1, dtype=torch.int64)
    for factor in term.factors:
        inner = _heirs(factor, removal)
        joined = result[:, None] * grown_size(factor, sizes) + inner[None, :]
        result = torch.where((result[:, None] < 0) | (inner[None, :] < 0), -1, joined).flatten()
    return result


def _map(term: Term, units: Units, first: int) -> AxisMap:
    """The map of a part of an axis whose occurrences are numbered from `first` on."""
    if isinstance(term, Space):
        if term is not units.space:
            return _unchanged(0, term.size)
        numbers = torch.arange(units.new_size)
        return AxisMap(units.source, numbers >= units.old_size, torch.full((units.new_size,), first), numbers)
    if isinstance(term, Concat):
        maps, offset, done = [], 0, 0
        for part in term.parts:
            if occurs(units.space, part):
                if done < offset:  # the parts between, of which there may be hundreds, at once
                    maps.append(_unchanged(done, offset))
                inner = _map(part, units, first)
                maps.append(AxisMap(inner.source + offset, inner.added, inner.occurrence, inner.unit))
                first += occurrences(part, units.space)
                done = offset + part.size
            offset += part.size
        if done < offset:
            maps.append(_unchanged(done, offset))
        return AxisMap(
            torch.cat([m.source for m in maps]),
            torch.cat([m.added for m in maps]),
            torch.cat([m.occurrence for m in maps]),
            torch.cat([m.unit for m in maps]),
        )
    return _map_product(term, units, first)


def _unchanged(start: int, stop: int) -> AxisMap:
    """The map of positions in which nothing of the space lies."""
    nowhere = torch.full((stop - start,), -1)
    return AxisMap(torch.arange(start, stop), torch.zeros(stop - start, dtype=torch.bool), nowhere, nowhere)


def _map_product(term: Product, units: Units, first: int) -> AxisMap:
    """Row-major; the occurrences within a factor are numbered anew at each position that an other one tells apart."""
    start = torch.zeros(1, dtype=torch.int64)
    result = AxisMap(start, start.bool(), start, torch.full((1,), -1))
    for factor in term.factors:
        inner = _map(factor, units, 0)
        count = occurrences(factor, units.space)
        if not count:  # nothing of the space: either one place for all of it, or positions told apart
            count = len(told_apart(factor)) if isinstance(factor, Concat) else 1
            numbers = torch.arange(count) if count > 1 else torch.zeros(factor.size, dtype=torch.int64)
            count = max(count, 1)
            inner = AxisMap(inner.source, inner.added, numbers, inner.unit)
        outside = (result.occurrence < 0)[:, None] | (inner.occurrence < 0)[None, :]
        number = result.occurrence[:, None] * count + inner.occurrence[None, :]
        result = AxisMap(
            (result.source[:, None] * factor.size + inner.source[None, :]).flatten(),
            (result.added[:, None] | inner.added[None, :]).flatten(),
            torch.where(outside, -1, number).flatten(),
            torch.maximum(result.unit[:, None], inner.unit[None, :]).flatten(),
        )
    held = result.unit >= 0
    return AxisMap(result.source, result.added, torch.where(held, result.occurrence + first, -1), result.unit)
