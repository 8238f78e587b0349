"""What the numbers of a network show of units that might be taken away: zeros, means, copies, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from graphgrow.ir.doubles import in_double
from graphgrow.ir.facts import flatten_values
from graphgrow.ir.flow import Fill, Held, Weighted
from graphgrow.ir.positions import Removal, Units, axis_map, shrinkage
from graphgrow.ir.terms import Space
from graphgrow.ir.value import Value
from graphgrow.network.network import Network
from graphgrow.ops.analysis import Analysis
from graphgrow.rewrite.lines import line_means, lines_along, weighted
from graphgrow.rewrite.zeros import FEW, live_rows, rows_at


class Numbers:
    """The parameters of a network at the units of a removal; on the meta device they show whatever is asked for.

    Args:
        network: the network.
        removal: what is to go.
    """

    def __init__(self, network: Network, removal: Removal) -> None:
        self._network, self._removal = network, removal

    def shows(self, value: Value, axis: int, occurrence: int, fill: Held) -> bool:
        """Whether the entries that go are zero, the mean of those that stay, a weighted one, or merely finite.

        Zeros count where the other axes of the parameter stay: what only units that go read is of no matter.
        """
        tensor = tensor_of(self._network, value)
        if tensor.is_meta:
            return True
        shrunk = shrinkage(value.axes[axis], self._removal)
        gone = torch.nonzero((shrunk.heirs < 0) & (shrunk.occurrence == occurrence)).flatten()
        entries = tensor.index_select(axis, gone.to(tensor.device))
        if fill is Fill.MEAN:
            lines = lines_along(value.axes[axis], self._removal.space)
            means = line_means(tensor, axis, lines, shrunk.heirs >= 0, gone)
            return bool((entries == means.to(tensor.dtype)).all())
        if isinstance(fill, Weighted):
            return self._shows_weighted(tensor, value, axis, gone, fill)
        if fill is Fill.FREE:
            return bool(entries.isfinite().all())
        for other in value.axes_with(self._removal.space):
            if other != axis:
                entries = entries.index_select(
                    other, shrinkage(value.axes[other], self._removal).first.to(entries.device)
                )
        return fill is Fill.ZERO and not bool(entries.any())

    def _shows_weighted(
        self, tensor: torch.Tensor, value: Value, axis: int, gone: torch.Tensor, fill: Weighted
    ) -> bool:
        """Whether the entries that go are the means which a scale weights, or its one number for them, not zero."""
        scale = tensor_of(self._network, fill.by).flatten()
        if scale.is_meta:
            return True
        number = scale[self._removal.gone[:1].to(scale.device)]
        if not bool(number) or bool((scale[self._removal.gone.to(scale.device)] != number).any()):
            return False
        if fill.scale:
            return True
        space = self._removal.space
        weights = (scale.double() / number.double())[_units_along(value, axis, space).to(scale.device)]
        kept = shrinkage(value.axes[axis], self._removal).heirs >= 0
        means = line_means(weighted(tensor, axis, weights), axis, lines_along(value.axes[axis], space), kept, gone)
        entries = tensor.index_select(axis, gone.to(tensor.device))
        return bool((entries == means.to(tensor.dtype)).all())

    def equal(self, value: Value, axis: int, occurrence: int) -> bool:
        """Whether units that are merged hold the same bits along one occurrence."""
        tensor = tensor_of(self._network, value)
        if tensor.is_meta:
            return True
        shrunk = shrinkage(value.axes[axis], self._removal)
        here = torch.nonzero((shrunk.heirs >= 0) & (shrunk.occurrence == occurrence)).flatten()
        first = shrunk.first[shrunk.heirs[here]]
        mine, theirs = (tensor.index_select(axis, where.to(tensor.device)) for where in (here, first))
        return torch.equal(mine, theirs)


def tensor_of(network: Network, value: Value) -> torch.Tensor:
    """A parameter or buffer of a network, detached."""
    owner, _, field = value.name.rpartition(".")
    tensor = getattr(network.module.get_submodule(owner), field)
    assert isinstance(tensor, torch.Tensor)
    return tensor.detach()


def rows_of(network: Network, value: Value, axis: int, space: Space) -> torch.Tensor | None:
    """The entries of a parameter as one row for each unit, shape (units, rest); None on the meta device."""
    tensor = tensor_of(network, value)
    if tensor.is_meta:
        return None
    unit = _units_along(value, axis, space)
    at = torch.nonzero(unit >= 0).flatten()
    order = at[torch.argsort(unit[at], stable=True)]
    in_order = len(order) == tensor.shape[axis] and torch.equal(order, torch.arange(len(order)))
    chosen = tensor if in_order else tensor.index_select(axis, order.to(tensor.device))
    return chosen.movedim(axis, 0).reshape(space.size, -1)


def droppable_units(network: Network, space: Space) -> Iterator[list[int]]:
    """Units that may be such as growth makes, one guess after the other: the plan says whether they are.

    The numbers of the maps are read when a guess is asked for that wants them, once for all that do.
    """
    yield _unread(network, space)
    yield _silent(network, space)
    if scaled := _scaled_to_zero(network, space):
        of_some, of_all = torch.stack(scaled).any(0), torch.stack(scaled).all(0)
        if not of_some.all():  # else one of several is closed as a whole: a residual branch
            yield torch.nonzero(of_some).flatten().tolist()
        yield torch.nonzero(of_all).flatten().tolist()
    near = _near_means(network, space)
    yield _middling(near)
    yield _partly_middling(near)
    yield _middling_numbers(network, space)


def _unread(network: Network, space: Space) -> list[int]:
    """The units that nothing reads with weights other than zero, unless it belongs to such a unit itself."""
    analysis = network.analysis
    live = torch.zeros(space.size, dtype=torch.bool)
    within: list[torch.Tensor] = []
    for value, axis in _reading(analysis, space):
        tensor = tensor_of(network, value)
        if tensor.is_meta:
            return []
        others = [other for other in value.axes_with(space) if other != axis]
        unit = _units_along(value, axis, space)
        if not others:
            live[unit[(unit >= 0) & live_rows(rows_at(tensor, axis)).cpu()]] = True
            continue
        nonzero = _square(tensor != 0, axis, others[0])
        rows = _units_along(value, others[0], space)
        matrix = torch.zeros(space.size, space.size, dtype=torch.float32)  # which unit reads which
        where = torch.nonzero(nonzero.cpu() & (unit >= 0)[:, None] & (rows >= 0)[None, :])
        matrix[rows[where[:, 1]], unit[where[:, 0]]] = 1.0
        live[unit[(unit >= 0) & nonzero.cpu()[:, rows < 0].any(1)]] = True
        within.append(matrix)
    while within:
        reached = torch.stack([(matrix[live] > 0).any(0) for matrix in within]).any(0) | live
        if bool((reached == live).all()):
            break
        live = reached
    return torch.nonzero(~live).flatten().tolist()


def _silent(network: Network, space: Space) -> list[int]:
    """The units that some map, or a table that is read elsewhere too, writes with zeros along an occurrence."""
    silent = torch.zeros(space.size, dtype=torch.bool)
    for value, axis in [*writing(network.analysis, space), *_looked_up(network.analysis, space)]:
        tensor = tensor_of(network, value)
        if tensor.is_meta or value.buffer or tensor.dim() < 2:
            continue
        nonzero = live_rows(rows_at(tensor, axis)).cpu()
        present = axis_map(value.axes[axis], Units(space, torch.arange(space.size)))
        for occurrence in range(int(present.occurrence.max()) + 1):
            heard = torch.zeros(space.size, dtype=torch.bool)
            heard[present.unit[(present.occurrence == occurrence) & nonzero]] = True
            silent |= ~heard
    return torch.nonzero(silent).flatten().tolist()


def _scaled_to_zero(network: Network, space: Space) -> list[torch.Tensor]:
    """For each operator that has one number or more for every unit, and no map, the units of which all are zero.

    Batch norms whose scale and shift are gone, as slimming leaves them (Liu et al. 2017), and layer scales.
    """
    found = []
    for facts in network.analysis.touching(space):
        own = [(v, axis) for v in facts.operands if v.parameter and not v.buffer for axis in v.axes_with(space)]
        if not own or any(len(value.axes) > 1 for value, _ in own):
            continue
        rows = [rows_of(network, value, axis, space) for value, axis in own]
        zero = [~live_rows(row).cpu() for row in rows if row is not None]
        if zero:
            found.append(torch.stack(zero).all(0))
    return found


def _middling(near: list[torch.Tensor]) -> list[int]:
    """The units that every map writes with something near the mean of all, or with zeros."""
    return torch.nonzero(torch.stack(near).all(0)).flatten().tolist() if near else []


def _partly_middling(near: list[torch.Tensor]) -> list[int]:
    """The units that some map writes with something near the mean of all: no norm may stand behind the others."""
    found = [units for units in near if not units.all()]  # else the map tells units not apart
    return torch.nonzero(torch.stack(found).any(0)).flatten().tolist() if found else []


def _middling_numbers(network: Network, space: Space) -> list[int]:
    """The units that have the root mean square of all in some scale with one number for each, as rounding leaves it."""
    middling = torch.zeros(space.size, dtype=torch.bool)
    for value, _ in writing(network.analysis, space):
        tensor = tensor_of(network, value)
        if tensor.is_meta or value.buffer or value.complex or tensor.numel() != space.size:
            continue
        numbers = in_double(tensor).flatten()
        near = (numbers - numbers.square().mean().sqrt()).abs() <= torch.finfo(tensor.dtype).eps * numbers.abs().max()
        if not near.all():
            middling |= near.cpu()
    return torch.nonzero(middling).flatten().tolist()


def _near_means(network: Network, space: Space) -> list[torch.Tensor]:
    """For each map that writes the space, which units are near the mean of all, as its dtype rounds it, or zero."""
    found = []
    for value, axis in writing(network.analysis, space):
        rows = rows_of(network, value, axis, space)
        if rows is None or value.buffer or len(value.axes) < 2:
            continue
        tolerance = max(1e-5, torch.finfo(rows.dtype).eps)
        # The first entries of a row are no farther from the mean than the whole, and are seldom near it.
        near = _distances(rows[:, :FEW]) <= 1.01 * tolerance * float(rows.norm(dim=1).max())
        if bool(near.any()):
            near = _distances(rows) <= tolerance * in_double(rows).norm(dim=1).max()
        found.append((near | ~live_rows(rows)).cpu())
    return found


def _distances(rows: torch.Tensor) -> torch.Tensor:
    """How far each row is from the mean of all."""
    wide = in_double(rows)
    distances: torch.Tensor = (wide - wide.mean(0)).norm(dim=1)
    return distances


def names_over(network: Network, space: Space) -> frozenset[str]:
    """The qualified names of the parameters and buffers over a space."""
    values = {v for facts in network.analysis.touching(space) for v in facts.values() if v.parameter}
    return frozenset(name for value in values if value.axes_with(space) for name in value.aliases)


def writing(analysis: Analysis, space: Space) -> list[tuple[Value, int]]:
    """The axes of parameters along which a space is written."""
    reading = set(_reading(analysis, space))
    values = dict.fromkeys(v for facts in analysis.touching(space) for v in facts.values() if v.parameter)
    return [(v, axis) for v in values for axis in v.axes_with(space) if (v, axis) not in reading]


def _looked_up(analysis: Analysis, space: Space) -> list[tuple[Value, int]]:
    """The axes along which tied parameters write a space: what a contraction reads, and another operator passes on."""
    found: dict[tuple[Value, int], None] = {}
    reading = set(_reading(analysis, space))
    for facts in analysis.touching(space):
        own = {key for c in facts.contractions for key in ((c.left, c.left_axis), (c.right, c.right_axis))}
        if facts.node.op.startswith("call") and any(out.axes_with(space) for out in flatten_values(facts.output)):
            keys = [(value, axis) for value in facts.operands for axis in value.axes_with(space)]
            found.update((key, None) for key in keys if key in reading - own)
    return list(found)


def _reading(analysis: Analysis, space: Space) -> list[tuple[Value, int]]:
    found = {
        (value, axis): None
        for facts in analysis.touching(space)
        for c in facts.contractions
        for value, axis in ((c.left, c.left_axis), (c.right, c.right_axis))
        if value.parameter and axis in value.axes_with(space)
    }
    return list(found)


def _units_along(value: Value, axis: int, space: Space) -> torch.Tensor:
    """For each position of an axis the unit of the space that lies there, -1 for none."""
    return axis_map(value.axes[axis], Units(space, torch.arange(space.size))).unit


def _square(nonzero: torch.Tensor, axis: int, other: int) -> torch.Tensor:
    """Whether anything is not zero for each pair of positions along two axes."""
    rest = [i for i in range(nonzero.dim()) if i not in (axis, other)]
    return nonzero.permute(axis, other, *rest).flatten(2).any(2) if rest else nonzero.permute(axis, other)
