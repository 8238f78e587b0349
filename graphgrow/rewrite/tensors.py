"""How one parameter grows: new entries along its axes, and what becomes of its optimizer state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from graphgrow.ir.doubles import of_kind
from graphgrow.ir.flow import Common, Fill, Level, State, Weighted
from graphgrow.ir.positions import AxisMap, Units, axis_map
from graphgrow.ir.value import Fresh, Value
from graphgrow.planning.request import along
from graphgrow.rewrite.lines import line_means, lines_along, weighted
from graphgrow.rewrite.roles import Role
from graphgrow.rewrite.runs import assign, deviation_of, draw_normal, runs, spread
from graphgrow.rewrite.shares import Reading

_APART = 0.1  # deviation of the new gains of a rescaled norm
_SMALL = 0.1  # the deviation of numbers that must not be zero, where the old ones are all alike


@dataclass(frozen=True)
class AxisGrowth:
    """One axis of a parameter that grows.

    Attributes:
        axis: its number.
        map: of its positions.
        fills: of each occurrence.
        lines: of its old positions.
    """

    axis: int
    map: AxisMap
    fills: State
    lines: torch.Tensor

    def added(self, occurrence: int) -> torch.Tensor:
        """The new positions of one occurrence."""
        return torch.nonzero(self.map.added & (self.map.occurrence == occurrence)).flatten()

    @property
    def old_units(self) -> torch.Tensor:
        """For each old position the unit that lies there, for all others the last one, int64, shape (old size,)."""
        return self.map.unit[self.map.kept]

    def means(self, tensor: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """For each of some new positions the mean of the old entries in its line, wide."""
        every = torch.ones_like(self.lines, dtype=torch.bool)
        return line_means(tensor, self.axis, self.lines, every, self.map.source[where])

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with each position of the axis at its new places; appended positions are left unset."""
        replicated = Fill.COPY in self.fills or Fill.SHARE in self.fills
        placed = torch.ones_like(self.map.added) if replicated else ~self.map.added
        return spread(tensor, self.axis, self.map.source, placed)


@dataclass
class TensorGrowth:
    """The growth of one parameter or buffer.

    Attributes:
        value: the parameter.
        axes: its growing axes, those that read first, so that new rows cover new columns too.
        scale: a factor on the whole (the weight of a norm whose axis is filled at the mean).
        offset: what is added to the tensor where it is used, and so scaled with it (a norm that scales by 1 + w).
        weights: the scales by which means are weighted, as they were before.
        reading: tells how the copies are read, which takes longer than the growth; it scales the state of what writes
            them.
        apart: whether the shares of copies are pulled apart.
    """

    value: Value
    axes: list[AxisGrowth]
    scale: float = 1.0
    offset: float = 0.0
    reading: Callable[[], Reading | None] | None = None
    weights: dict[Value, torch.Tensor] = field(default_factory=dict)
    apart: bool = False

    @classmethod
    def of(
        cls, value: Value, units: Units, fills: dict[int, State], readers: set[int], apart: bool = False
    ) -> TensorGrowth:
        """The growth along all axes that hold the space; `fills` by axis."""
        order = sorted(fills, key=lambda axis: (axis not in readers, axis))
        terms = [(axis, value.axes[axis]) for axis in order]
        axes = [AxisGrowth(i, axis_map(t, units), fills[i], lines_along(t, units.space)) for i, t in terms]
        return cls(value, axes, apart=apart)

    def grow(self, old: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The grown tensor; new entries are drawn on the CPU, then cast and moved."""
        new = old.detach()
        shape = list(old.shape)
        for growth in self.axes:
            shape[growth.axis] = len(growth.map.source)
        for growth in self.axes:
            before, new = new, growth.spread(new)
            for occurrence, fill in enumerate(growth.fills):
                if fill is Fill.SHARE:
                    _share(new, growth, occurrence, generator, self._deviation(before, shape) if self.apart else None)
                elif fill is not Fill.COPY:
                    self._fill(new, before, growth, occurrence, shape, generator)
        if self.scale != 1.0:
            new = (self.offset + new) * self.scale - self.offset if self.offset else new * self.scale
        return laid_out_like(new, old)

    def _fill(
        self,
        new: torch.Tensor,
        before: torch.Tensor,
        growth: AxisGrowth,
        occurrence: int,
        shape: list[int],
        generator: torch.Generator,
    ) -> None:
        """Set the appended units of one occurrence; `before` is the tensor without them, `shape` the final one."""
        where, fill = growth.added(occurrence), growth.fills[occurrence]
        if fill is Fill.FREE:
            self._freshen(new, before, growth.axis, where, shape, generator)
        elif fill is Fill.REPEAT:
            first = growth.map.source[where].to(before.device)
            assign(new, growth.axis, where, before.index_select(growth.axis, first))
        elif fill is Fill.MEAN:
            assign(new, growth.axis, where, growth.means(before, where))
        elif isinstance(fill, Common):
            assign(new, growth.axis, where, before.mean(growth.axis, keepdim=True, dtype=_wide(new.dtype)))
        elif isinstance(fill, Level):
            axes = along(self.value, fill)
            assert axes is not None  # none was asked of it else
            assign(new, growth.axis, where, before.mean(axes, keepdim=True, dtype=_wide(new.dtype)))
        elif isinstance(fill, Weighted):
            assign(new, growth.axis, where, self._weighted(before, growth, where, fill))
        else:
            assign(new, growth.axis, where, 0)

    def _weighted(self, before: torch.Tensor, growth: AxisGrowth, where: torch.Tensor, fill: Weighted) -> torch.Tensor:
        """The scale's new number, its root mean square (1 where all are zero); or the means that it weights."""
        scale = self.weights[fill.by].detach().flatten()
        weights = scale.double()
        number = weights.square().mean().sqrt()
        number = torch.where(number > 0, number, torch.ones_like(number)).to(scale.dtype).double()
        if fill.scale:
            return number.to(before.dtype).expand([1] * before.dim())
        by_position = (weights / number)[growth.old_units.to(scale.device)]
        return growth.means(weighted(before, growth.axis, by_position), where)

    def _freshen(
        self,
        new: torch.Tensor,
        before: torch.Tensor,
        axis: int,
        where: torch.Tensor,
        shape: list[int],
        generator: torch.Generator,
    ) -> None:
        start = self.value.fresh
        if start in (Fresh.ONES, Fresh.ZEROS):
            self._gain(new, axis, where, 1.0 if start is Fresh.ONES else 0.0, generator)
        if start is Fresh.REPEAT:
            turns = torch.arange(len(where), device=before.device) % before.shape[axis]
            assign(new, axis, where, before.index_select(axis, turns))
        if start in (Fresh.ONES, Fresh.ZEROS, Fresh.REPEAT) or new.is_meta:
            return
        if start is Fresh.LIKE and before.numel() and bool((before == before.reshape(-1)[0]).all()):
            self._gain(new, axis, where, before.reshape(-1)[0].item(), generator)  # 1 everywhere, or 0
            return
        deviation = self._deviation(before, shape)
        found = runs(where, where)
        if found is not None and len(found) == 1 and start is not Fresh.ABOVE:
            draw_normal(new.narrow(axis, found[0].target, found[0].length), deviation, generator)
            return
        target = list(new.shape)
        target[axis] = len(where)
        values = torch.empty(target, dtype=of_kind(torch.float32, new.dtype))
        draw_normal(values, deviation, generator)
        if start is Fresh.ABOVE:
            values = values.abs()
        assign(new, axis, where, values)

    def _gain(
        self, new: torch.Tensor, axis: int, where: torch.Tensor, number: float, generator: torch.Generator
    ) -> None:
        """Set new entries to a number; those of a norm that is rescaled a little apart.

        Behind such a norm new units are alike, all at the mean: where what reads them is alike as well, as columns of a
        table that writes them too, nothing else would ever part them.
        """
        if self.scale == 1.0 or new.is_meta:
            assign(new, axis, where, number)
            return
        shape = list(new.shape)
        shape[axis] = len(where)
        values = torch.empty(shape, dtype=of_kind(torch.float32, new.dtype))
        draw_normal(values, _APART, generator)
        assign(new, axis, where, values + number)

    def _deviation(self, before: torch.Tensor, shape: list[int]) -> float:
        """Of fresh entries: He's at the final fan, or that of the entries there are; 0 where there are no data."""
        if before.is_meta:
            return 0.0
        if self.value.fresh is Fresh.ABOVE:
            return deviation_of(before) or _SMALL
        if self.value.fresh is not Fresh.HE:
            return deviation_of(before)
        fan = math.prod(shape[axis] for axis in self.value.fan)
        return math.sqrt(2.0 / max(fan, 1))

    def carry(self, state: torch.Tensor, role: Role) -> torch.Tensor:
        """Optimizer state of the same shape as the parameter, grown with it.

        What follows the gradient's k-th power goes with its scale: a written copy goes with how it is read (`Reading`);
        a tensor scaled by c has m / c and v / c^2; shares keep both. New entries have m = 0, and for v the mean of the
        old entries along the axis, since `step` is carried over and a v of 0 would make their first updates several
        times the learning rate. A pace is divided among shares, each of which gets the gradient of the whole.
        """
        new, reading = state.detach(), None if self.reading is None else self.reading()
        for growth in self.axes:
            before, new = new, growth.spread(new)
            for occurrence, fill in enumerate(growth.fills):
                if fill is Fill.COPY and reading is not None:
                    new = _multiplied(new, growth, occurrence, reading.factors(role)[growth.map.unit.clamp(min=0)])
                elif fill is Fill.SHARE and role is Role.PACE:
                    copies = growth.map.source.bincount(minlength=before.shape[growth.axis])
                    new = _multiplied(new, growth, occurrence, 1.0 / copies[growth.map.source].double())
                elif fill not in (Fill.COPY, Fill.SHARE):
                    entries = before.mean(growth.axis, keepdim=True) if role.averaged else 0.0
                    assign(new, growth.axis, growth.added(occurrence), entries)
        return new / self.scale**role.order if self.scale != 1.0 else new


def _multiplied(new: torch.Tensor, growth: AxisGrowth, occurrence: int, factors: torch.Tensor) -> torch.Tensor:
    """The tensor with one occurrence multiplied by a factor for each position of the axis."""
    factors = torch.where(growth.map.occurrence == occurrence, factors, torch.ones((), dtype=factors.dtype))
    shape = [1] * new.dim()
    shape[growth.axis] = -1
    return new * factors.reshape(shape).to(new.device, new.dtype)


def laid_out_like(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """The tensor in the memory format of its predecessor."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    layout = formats.get(old.dim())
    if layout is None or old.is_contiguous() or not old.is_contiguous(memory_format=layout):
        return new
    return new.contiguous(memory_format=layout)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Means are taken in float64, so that they are the mean to the last bit of the narrower type."""
    return of_kind(torch.float64, dtype) if dtype.is_floating_point or dtype.is_complex else dtype


def _share(
    new: torch.Tensor, growth: AxisGrowth, occurrence: int, generator: torch.Generator, deviation: float | None
) -> None:
    """Share each replicated entry of one occurrence among the copies of its unit, exactly and in place.

    For an entry w draw u in [1/2, 1], w1 = fl(w u), w2 = w - w1: by Sterbenz' lemma the subtraction is exact for u up
    to 2, so w1 + w2 = w to the bit; different u part the copies (equal halves would never separate under training).
    With a deviation u reaches up to 2, and an entry of zero becomes v and -v, v normal of that deviation.
    """
    source, kept = growth.map.source, growth.map.kept
    for where in _copies_by_rank(growth, occurrence):
        first = kept[source[where]].to(new.device)
        whole = new.index_select(growth.axis, first)
        draw = torch.rand(whole.shape, generator=generator, dtype=torch.float32)
        draw.mul_(0.5 if deviation is None else 1.5).add_(0.5)
        part = whole * draw.to(whole.device, whole.dtype)
        if deviation is not None:
            opposite = torch.randn(whole.shape, generator=generator, dtype=torch.float32) * deviation
            part = torch.where(whole == 0, opposite.to(whole.device, whole.dtype), part)
        new.index_copy_(growth.axis, first, part)
        new.index_copy_(growth.axis, where.to(new.device), whole.sub_(part))


def _copies_by_rank(growth: AxisGrowth, occurrence: int) -> list[torch.Tensor]:
    """The added positions of an occurrence: the first copies of all units, then the second ones, and so on."""
    ranks: list[list[int]] = []
    seen: dict[int, int] = {}
    for position in growth.added(occurrence).tolist():
        origin = int(growth.map.source[position])
        rank = seen.get(origin, 0)
        seen[origin] = rank + 1
        if rank == len(ranks):
            ranks.append([])
        ranks[rank].append(position)
    return [torch.tensor(positions) for positions in ranks]
