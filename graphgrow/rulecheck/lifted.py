"""Whether a tensor is the lift of another: old units at their places, new ones as their fill state says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphgrow.ir.doubles import in_double
from graphgrow.ir.flow import Common, Fill, State
from graphgrow.ir.positions import AxisMap, Kept, Units, axis_map
from graphgrow.ir.terms import Term
from graphgrow.rewrite.draws import Drawing, begin_random

TOLERANCE = 1e-12  # relative to the magnitude of what the operator puts out


class Mismatch(Exception):
    """An operator does not hold what its rule promises; the text says by how much."""


@dataclass(frozen=True)
class Observed:
    """What a node put out, and the buffers that it left behind."""

    outputs: list[torch.Tensor]
    buffers: dict[str, torch.Tensor]


class _Recorder(Drawing):
    def __init__(self, module: fx.GraphModule, name: str, places: Mapping[str, Mapping[int, Kept]]) -> None:
        super().__init__(module, places)
        self._name, self.found = name, None

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name == self._name:
            self.found = result
        return result


def observe(
    module: fx.GraphModule, name: str, training: bool, places: Mapping[str, Mapping[int, Kept]] | None = None
) -> Observed:
    """The outputs of a node, and the buffers, which a run in train mode changes.

    The same random numbers each time; in a grown graph, those of the graph before at the places of its units.
    """
    recorder = _Recorder(module.train(training), name, places or {})
    begin_random(7)
    with torch.no_grad():
        recorder(torch.ones(2, dtype=torch.float64))
    return Observed(list(_tensors(recorder.found)), dict(module.named_buffers()))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def require_close(new: torch.Tensor, old: torch.Tensor) -> None:
    """Want equal numbers within the tolerance, relative to the magnitude; NaN only where there was NaN.

    Raises:
        Mismatch: if they are not.
    """
    if new.shape != old.shape:
        raise Mismatch(f"shape {tuple(new.shape)} where {tuple(old.shape)} was expected")
    new, old = in_double(new.detach()), in_double(old.detach())
    error = (new - old).abs()
    limit = TOLERANCE * (1 + float(old.abs().nan_to_num(posinf=0.0).max())) if old.numel() else 0.0
    good = (error <= limit) | (new == old) | (new.isnan() & old.isnan())
    if not bool(good.all()):
        raise Mismatch(f"off by {float(error[~good].max()):.3g} where {limit:.3g} is allowed")


def require_filled(
    old: torch.Tensor, new: torch.Tensor, axis: int, where: AxisMap, state: State, term: Term, units: Units
) -> None:
    """Want the old units at their places and, at the new ones, what the state says.

    Raises:
        Mismatch: if the child's tensor holds something else.
    """
    if bool(old.isfinite().all()) and not bool(new.isfinite().all()):
        raise Mismatch("new units that are not finite")
    if new.shape[axis] != len(where.source):
        raise Mismatch(f"{new.shape[axis]} units along axis {axis} where {len(where.source)} were expected")
    line = axis_map(term, Units(units.space, torch.zeros_like(units.source))).source  # other coordinates than the unit
    old, new = in_double(old), in_double(new)
    expected = old.index_select(axis, where.source)
    compared = torch.ones(len(where.source), dtype=torch.bool)
    for occurrence, fill in enumerate(state):
        here = where.occurrence == occurrence
        new_here = here & where.added
        shape = [-1 if i == axis else 1 for i in range(old.dim())]
        if fill is Fill.FREE:
            compared &= ~new_here
        elif fill in (Fill.ZERO, Fill.NULL):
            expected = torch.where(new_here.reshape(shape), torch.zeros_like(expected), expected)
        elif fill is Fill.MEAN:
            kept = here & ~where.added
            means = _means(old, axis, where.source[kept], line[kept])
            expected = torch.where(new_here.reshape(shape), means.index_select(axis, line), expected)
        elif isinstance(fill, Common):
            expected = torch.where(new_here.reshape(shape), old.mean(axis, keepdim=True).expand_as(expected), expected)
        elif fill is Fill.SHARE:
            compared &= ~here
            sums = torch.zeros_like(old).index_add_(
                axis, where.source[here], new.index_select(axis, torch.nonzero(here).flatten())
            )
            touched = where.source[here & ~where.added]
            require_close(sums.index_select(axis, touched), old.index_select(axis, touched))
        # COPY, and EVEN (one value for all units): what the unit of origin holds
    chosen = torch.nonzero(compared).flatten()
    require_close(new.index_select(axis, chosen), expected.index_select(axis, chosen))


def _means(old: torch.Tensor, axis: int, source: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
    """At the place of each line, the mean over its positions."""
    total = torch.zeros_like(old).index_add_(axis, line, old.index_select(axis, source))
    count = torch.bincount(line, minlength=old.shape[axis]).clamp(min=1)
    return total / count.reshape([-1 if i == axis else 1 for i in range(old.dim())])
