"""How far a loop of training steps has come: kept every so many steps, so that a process that dies loses no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.train.optimizers import optimizer_state, restore_optimizer


class Progress:
    """The place of a loop of steps: where it begins, and who is told where it is.

    Args:
        keep: is given the place, of plain values and tensors; None keeps nothing.
        every: steps from one time to the next.
        found: a place that was kept; None begins with the first step.
    """

    def __init__(
        self,
        keep: Callable[[dict[str, Any]], None] | None = None,
        every: int = 1,
        found: Mapping[str, Any] | None = None,
    ) -> None:
        self._keep, self._every, self._found = keep, every, found

    def begin(self, module: nn.Module, *optimizers: Optimizer) -> tuple[int, Mapping[str, Any]]:
        """Set optimizers and torch's random numbers to the place where the loop begins.

        Returns:
            The steps that are done, and what was given to `passed` with them; nothing for the first step.
        """
        if self._found is None:
            return 0, {}
        for optimizer, state in zip(optimizers, self._found["optimizers"], strict=True):
            restore_optimizer(optimizer, module, state)
        torch.set_rng_state(self._found["random"])
        return self._found["steps"], self._found["given"]

    def passed(self, steps: int, module: nn.Module, *optimizers: Optimizer, **given: Any) -> None:
        """So many steps are done; what is given comes back from `begin`."""
        if self._keep is not None and steps % self._every == 0:
            states = [optimizer_state(optimizer, module) for optimizer in optimizers]
            self._keep({"steps": steps, "optimizers": states, "random": torch.get_rng_state(), "given": given})
