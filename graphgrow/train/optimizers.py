"""Optimizers by name, and their state by the names of what they train."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.errors import TrainingError

_MAKERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
}


def make_optimizer(name: str, module: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """An optimizer over all parameters of a module.

    Raises:
        TrainingError: if there is none of that name.
    """
    if name not in _MAKERS:
        raise TrainingError(f"there is no optimizer {name!r}; there are {', '.join(_MAKERS)}")
    return _MAKERS[name](module.parameters(), lr=lr, weight_decay=weight_decay)


def optimizer_state(optimizer: Optimizer, module: nn.Module) -> dict[str, Any]:
    """Its state, and by the names of the module which parameters each group has, in order."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    held = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    return {"names": held, "state": optimizer.state_dict()}


def restore_optimizer(optimizer: Optimizer, module: nn.Module, state: dict[str, Any]) -> None:
    """Put a state back into an optimizer of the same kind over a module of the same names."""
    for group, names in zip(optimizer.param_groups, state["names"], strict=True):
        group["params"][:] = [module.get_parameter(name) for name in names]
    optimizer.load_state_dict(state["state"])
