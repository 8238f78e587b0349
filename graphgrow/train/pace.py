"""The pace of what is new: warm-up and another learning rate for single entries, under any optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Pace:
    """By what the updates of new entries are multiplied, t steps after a growth.

    It rises linearly from 0 to `rate` within `warm_up` steps, and then goes linearly to 1 within `decay` steps.

    Attributes:
        rate: learning rate of what is new over that of the rest.
        warm_up: steps.
        decay: steps.
    """

    rate: float = 1.0
    warm_up: int = 100
    decay: int = 0

    def factor(self, step: int) -> float:
        """The factor of the step-th update, from 1."""
        if step <= self.warm_up:
            return self.rate * step / (self.warm_up + 1)
        along = (step - self.warm_up) / (self.decay + 1)
        return 1.0 if along >= 1 else self.rate + (1.0 - self.rate) * along

    def over(self, step: int) -> bool:
        """Whether all later factors are 1."""
        return step > self.warm_up + self.decay


class Newcomers:
    """Slows the updates of new entries down, under any optimizer.

    By hooks on it: before a step the entries are remembered, after it they go a part of the way. A step that a
    gradient scaler leaves out is left out here too.

    Args:
        optimizer: that trains them.
        pace: of what is new.
    """

    def __init__(self, optimizer: Optimizer, pace: Pace) -> None:
        self._pace = pace
        self._step = 0
        self._entries: dict[str, tuple[nn.Parameter, torch.Tensor]] = {}
        self._before: dict[str, torch.Tensor] = {}
        optimizer.register_step_pre_hook(self._remember)
        optimizer.register_step_post_hook(self._slow_down)

    def welcome(self, module: nn.Module, new: Mapping[str, torch.Tensor]) -> None:
        """Begin anew with the entries of one growth; those of the last one go on at full pace."""
        self._step = 0
        self._before = {}
        self._entries = {}
        for name, entries in new.items():
            parameter = module.get_parameter(name)
            self._entries[name] = (parameter, entries.to(parameter.device).flatten().nonzero().flatten())

    def state(self) -> dict[str, Any]:
        """What `restore` needs: the step and the places of the entries."""
        return {"step": self._step, "entries": {name: places for name, (_, places) in self._entries.items()}}

    def restore(self, module: nn.Module, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._step = state["step"]
        self._entries = {name: (module.get_parameter(name), places) for name, places in state["entries"].items()}

    def _remember(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._step += 1
        if self._entries and self._pace.over(self._step):
            self._entries = {}
        for name, (parameter, places) in self._entries.items():
            self._before[name] = _entries_of(parameter, places)

    def _slow_down(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        factor = self._pace.factor(self._step)
        with torch.no_grad():
            for name, (parameter, places) in self._entries.items():
                before = self._before.pop(name)
                after = _entries_of(parameter, places)
                mixed = torch.lerp(before, after, factor)
                if parameter.is_contiguous():
                    parameter.view(-1).index_copy_(0, places, mixed)
                else:
                    flat = parameter.flatten().index_copy(0, places, mixed)
                    parameter.copy_(flat.view(parameter.shape))


def _entries_of(parameter: nn.Parameter, places: torch.Tensor) -> torch.Tensor:
    return parameter.detach().flatten().index_select(0, places)
