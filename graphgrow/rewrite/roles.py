"""What the state tensors of optimizers hold, and so how each follows a growth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch.optim import Optimizer

from graphgrow.errors import OptimizerError


class Role(Enum):
    """What a state tensor of a parameter's shape holds.

    PACE is no optimizer's: it holds by what an entry's steps are multiplied so that a growth changes the function no
    faster than the parent's training did (`graphgrow.train.newness`).

    Attributes:
        order: the power of the gradient's scale that it goes with.
        averaged: whether new entries start at the mean of the old ones along the axis, instead of at zero: what the
            update is divided by must not be zero while the step count goes on.
    """

    MOMENT = "moment"
    SQUARE = "square"
    MAGNITUDE = "magnitude"
    DIRECTION = "direction"
    PACE = "pace"

    @property
    def order(self) -> int:
        """1 for means of gradients and their magnitudes, 2 for squares, 0 for what does not go with it."""
        return {Role.MOMENT: 1, Role.SQUARE: 2, Role.MAGNITUDE: 1}.get(self, 0)

    @property
    def averaged(self) -> bool:
        """True for squares and magnitudes."""
        return self in (Role.SQUARE, Role.MAGNITUDE)


Start = Callable[[Mapping[str, Any], torch.Tensor], dict[str, Any]]


@dataclass(frozen=True)
class StateRoles:
    """The state of one optimizer class.

    Attributes:
        roles: of its state tensors, by name.
        start: the state of a new parameter, for optimizers that make it when they are built and not in the first step.
        uncorrected: whether nothing makes up for the few gradients that a new parameter has seen, so that its first
            steps, divided by the root of far too small a square, would be several times as long as those of the rest
            (1 / sqrt(1 - alpha) learning rates under RMSprop). Its squares then begin at the mean of a neighbour's.
    """

    roles: Mapping[str, Role]
    start: Start | None = None
    uncorrected: bool = False


def _adagrad_start(group: Mapping[str, Any], parameter: torch.Tensor) -> dict[str, Any]:
    value = group["initial_accumulator_value"]
    total = torch.full_like(parameter, value, memory_format=torch.preserve_format)
    on_device = group["capturable"] if "capturable" in group else group["fused"]
    step = torch.zeros((), dtype=torch.float32, device=parameter.device if on_device else None)
    return {"step": step, "sum": total.detach()}


_ADAM = StateRoles({"exp_avg": Role.MOMENT, "exp_avg_sq": Role.SQUARE, "max_exp_avg_sq": Role.SQUARE})
_KNOWN: dict[type[Optimizer], StateRoles] = {
    torch.optim.SGD: StateRoles({"momentum_buffer": Role.MOMENT}),
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
    torch.optim.NAdam: _ADAM,
    torch.optim.RAdam: _ADAM,
    torch.optim.Adamax: StateRoles({"exp_avg": Role.MOMENT, "exp_inf": Role.MAGNITUDE}),
    torch.optim.Adagrad: StateRoles({"sum": Role.SQUARE}, _adagrad_start, uncorrected=True),
    # its momentum adds up gradients that were divided by their root mean square, and so have no scale
    torch.optim.RMSprop: StateRoles(
        {"square_avg": Role.SQUARE, "grad_avg": Role.MOMENT, "momentum_buffer": Role.DIRECTION}, uncorrected=True
    ),
}


def register_optimizer(optimizer: type[Optimizer], *, start: Start | None = None, **roles: str) -> None:
    """Say what an optimizer of your own keeps for each parameter, so that it can be carried over to a grown model.

    For example, for a Lion that keeps a mean of gradients: `gg.register_optimizer(Lion, exp_avg="moment")`. State that
    is no tensor of the parameter's shape (step counts) needs no role and is kept.

    Args:
        optimizer: the class; subclasses are not meant.
        start: `(param_group, parameter) -> state` of a parameter that is new, where the class makes state when it is
            built; left out, a new parameter begins without state.
        roles: by name of a state tensor of the parameter's shape: "moment" (a mean of gradients), "square" (of their
            squares), "magnitude" (of their absolute values), "direction" (of updates that were normalised).

    Raises:
        OptimizerError: if a role is unknown.
    """
    known = {role.value: role for role in Role}
    unknown = [f"{name}={role!r}" for name, role in roles.items() if role not in known]
    if unknown:
        raise OptimizerError(f"unknown roles {', '.join(unknown)}; there are {', '.join(known)}")
    _KNOWN[optimizer] = StateRoles({name: known[role] for name, role in roles.items()}, start)


def state_roles(optimizer: Optimizer) -> StateRoles:
    """What an optimizer keeps.

    Raises:
        OptimizerError: if its class is unknown.
    """
    found = _KNOWN.get(type(optimizer))
    if found is None:
        known = ", ".join(sorted(cls.__name__ for cls in _KNOWN if not cls.__name__.startswith("_")))
        raise OptimizerError(
            f"the state of {type(optimizer).__name__} cannot be carried over; known are {known}. Say what it keeps "
            "with gg.register_optimizer, or grow without `optimizer` and make a new one"
        )
    return found
