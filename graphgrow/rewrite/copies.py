"""Units that are written alike."""

from __future__ import annotations

import torch

from graphgrow.ir.doubles import parts
from graphgrow.ir.flow import Fill
from graphgrow.ir.positions import Units, axis_map
from graphgrow.ir.terms import Space
from graphgrow.ir.value import Value
from graphgrow.network.network import Network
from graphgrow.planning.growth import Plan
from graphgrow.rewrite.present import tensor_of


def classes_of_copies(network: Network, space: Space, plan: Plan) -> dict[int, int]:
    """For each unit that is a copy of an earlier one, that one.

    Args:
        network: the network.
        space: whose units are compared.
        plan: of a growth by copies; what it copies is compared, what it shares out is not.
    """
    if not any(value.parameter and Fill.COPY in state for (value, _), state in plan.fills.items()):
        return {}  # a sum over the units: nothing says that they are alike
    labels = torch.zeros(space.size, dtype=torch.int64)
    for (value, axis), state in plan.fills.items():
        if not value.parameter or Fill.COPY not in state:
            continue
        rows = _copied_rows(network, value, axis, space, [i for i, fill in enumerate(state) if fill is Fill.COPY])
        if rows is None:
            return {}
        if not rows.numel():  # of an axis without units: all are alike
            continue
        rows = parts(rows)
        if len(torch.unique(rows.flatten(1)[:, 0])) == space.size:
            return {}  # no two begin alike, which is soon seen
        _, found = torch.unique(rows, dim=0, return_inverse=True)
        _, labels = torch.unique(torch.stack([labels, found.cpu()], 1), dim=0, return_inverse=True)
        if int(labels.max()) == space.size - 1:
            return {}
    first: dict[int, int] = {}
    into: dict[int, int] = {}
    for unit, label in enumerate(labels.tolist()):
        if first.setdefault(label, unit) != unit:
            into[unit] = first[label]
    return into


def _copied_rows(
    network: Network, value: Value, axis: int, space: Space, occurrences: list[int]
) -> torch.Tensor | None:
    """The entries of a parameter at some occurrences, one row for each unit; None on the meta device."""
    tensor = tensor_of(network, value)
    if tensor.is_meta:
        return None
    present = axis_map(value.axes[axis], Units(space, torch.arange(space.size)))
    at = torch.nonzero(torch.isin(present.occurrence, torch.tensor(occurrences))).flatten()
    order = at[torch.argsort(present.unit[at], stable=True)].to(tensor.device)
    rows = tensor.index_select(axis, order).movedim(axis, 0).reshape(space.size, -1)
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
