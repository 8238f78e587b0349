"""The pace of what is new: warm-up and another learning rate for single entries, under any optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.rewrite.roles import Role, state_roles

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Pace:
    """By what the updates of new entries are multiplied, t steps after a growth.

    It rises linearly from 0 to `rate` within `warm_up` steps, and then goes linearly to 1 within `decay` steps. What a
    split shared out or copied begins in between, where the function changes as fast as before (`Newness.paces`), and
    rises to 1: of two shares each gets the gradient of the whole, so that both together would go twice as far.

    A weight that has grown large in training changes little by steps of a given size, and behind a norm that is all
    that its size does (van Laarhoven, "L2 regularization versus batch and weight normalization", 2017): a trained
    network is slow to make use of what is new. With `boost` the steps of each whole weight of a linear layer or a
    convolution are, from the growth on, multiplied by its size over that of a fresh one. That is meant for optimizers
    whose steps do not depend on the size of gradients, as Adam's.

    Attributes:
        rate: learning rate of what is new over that of the rest.
        warm_up: steps.
        decay: steps.
        boost: by how much whole weights are sped up at most; 1 is not at all.
        forget: whether the optimizer begins anew at a growth, for all parameters, rather than with what it carried.
            The loss then rises for some steps, and may end lower.
    """

    rate: float = 1.0
    warm_up: int = 100
    decay: int = 0
    boost: float = 1.0
    forget: bool = False

    @classmethod
    def under(cls, optimizer: Optimizer) -> Pace:
        """The default under an optimizer: twice the warm-up where nothing corrects for few gradients (RMSprop).

        Such an optimizer, without a mean of gradients, goes by each batch alone; at half of its warm-up's pace a new
        block then disturbs a trained network no more than the goal allows (docs/learning/steps_after_growth.md).
        """
        return cls(warm_up=2 * cls.warm_up if state_roles(optimizer).uncorrected else cls.warm_up)

    def factors(self, step: int, starts: torch.Tensor) -> torch.Tensor:
        """The factors of the step-th update, from 1, of entries that begin at `starts`; new ones begin at 0."""
        rates = torch.where(starts == 0, self.rate, 1.0)
        if step <= self.warm_up:
            return starts + (rates - starts) * (step / (self.warm_up + 1))
        return rates + (1.0 - rates) * min(1.0, (step - self.warm_up) / (self.decay + 1))

    def over(self, step: int) -> bool:
        """Whether all later factors are 1."""
        return step > self.warm_up + self.decay


@dataclass(frozen=True, eq=False)
class _Entries:
    """Some entries of one parameter, by their places in it when it is flat, and the pace that each begins at."""

    name: str
    parameter: nn.Parameter
    places: torch.Tensor
    starts: torch.Tensor

    @property
    def whole(self) -> bool:
        """Whether the parameter is new as a whole."""
        return len(self.places) == self.parameter.numel() and not bool(self.starts.any())

    def values(self) -> torch.Tensor:
        return self.parameter.detach().flatten().index_select(0, self.places)

    def set(self, values: torch.Tensor) -> None:
        if self.parameter.is_contiguous():
            self.parameter.view(-1).index_copy_(0, self.places, values)
        else:
            flat = self.parameter.flatten().index_copy(0, self.places, values)
            self.parameter.copy_(flat.view(self.parameter.shape))


@dataclass(frozen=True, eq=False)
class _Boosted:
    """A whole weight, and by what its steps are multiplied."""

    name: str
    parameter: torch.Tensor
    factor: float


class Newcomers:
    """Slows the updates of what a growth made down, and boosts those of large weights, under any optimizer.

    By hooks on it: before a step the entries are remembered, after it they go a part of the way, or further. A step
    that a gradient scaler leaves out is left out here too.

    Where nothing makes up for the few gradients that a new parameter has seen (RMSprop, Adagrad), the optimizer is
    carried over with the mean squares of a parameter beside it, whose gradients may be several times smaller. Before
    the first step they are raised to the mean square of the new parameter's own gradient, if that is larger.

    Args:
        optimizer: that trains them.
        pace: of what is new.
    """

    def __init__(self, optimizer: Optimizer, pace: Pace) -> None:
        self._pace = pace
        self._optimizer = optimizer
        self._step = 0
        self._entries: list[_Entries] = []
        self._before: list[torch.Tensor] = []
        self._boosted: list[_Boosted] = []
        self._whole: list[torch.Tensor] = []
        optimizer.register_step_pre_hook(self._remember)
        optimizer.register_step_post_hook(self._slow_down)

    def welcome(self, module: nn.Module, paces: Mapping[str, torch.Tensor]) -> None:
        """Begin anew with the entries of one growth; those of the last one go on at full pace.

        What is boosted is found anew; with nothing new (a growth was taken back) nothing is.

        Args:
            module: grown.
            paces: by name of a parameter, the pace that each entry begins at (`Newness.paces`).
        """
        self._step, self._before, self._entries, self._whole = 0, [], [], []
        self._boosted = _large(module, self._pace.boost) if paces else []
        if paces and self._pace.forget:
            _forget(self._optimizer)
        for name, starts in paces.items():
            parameter = module.get_parameter(name)
            flat = starts.to(parameter.device).flatten()
            places = (flat != 1).nonzero().flatten()
            self._entries.append(_Entries(name, parameter, places, flat[places]))

    def state(self) -> dict[str, Any]:
        """What `restore` needs: the step, for each set of entries its parameter, places and starts, and all boosts."""
        return {
            "step": self._step,
            "entries": [[one.name, one.places, one.starts] for one in self._entries],
            "boosted": [[one.name, one.factor] for one in self._boosted],
        }

    def restore(self, module: nn.Module, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._step, self._before, self._whole = state["step"], [], []
        self._entries = [
            _Entries(name, module.get_parameter(name), places, starts) for name, places, starts in state["entries"]
        ]
        self._boosted = [_Boosted(name, module.get_parameter(name), factor) for name, factor in state["boosted"]]

    def _remember(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._step += 1
        if self._step == 1:
            self._raise_squares()
        if self._pace.over(self._step):
            self._entries = []
        self._before = [one.values() for one in self._entries]
        self._whole = [one.parameter.detach().clone() for one in self._boosted]

    def _raise_squares(self) -> None:
        """No square of a whole new parameter below the mean square of its first gradient."""
        known = state_roles(self._optimizer)
        if not known.uncorrected or self._pace.forget:
            return
        for parameter in (one.parameter for one in self._entries if one.whole):
            level = 0.0 if parameter.grad is None else float(parameter.grad.square().mean())
            for name, item in self._optimizer.state.get(parameter, {}).items():
                if known.roles.get(name) is Role.SQUARE and math.isfinite(level):
                    item.clamp_(min=level)

    def _slow_down(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for one, before in zip(self._entries, self._before, strict=True):
                factors = self._pace.factors(self._step, one.starts).to(before.dtype)
                one.set(torch.lerp(before, one.values(), factors))
            for weight, before in zip(self._boosted, self._whole, strict=True):
                weight.parameter.copy_(torch.lerp(before, weight.parameter, weight.factor))
        self._before, self._whole = [], []


def _forget(optimizer: Optimizer) -> None:
    """Give every parameter the state that it has before the first step."""
    start = state_roles(optimizer).start
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state.pop(parameter, None)
            if start is not None:
                optimizer.state[parameter] = start(group, parameter)


def _large(module: nn.Module, most: float) -> list[_Boosted]:
    """Weights that are larger than fresh ones, by as much, and by `most` at most."""
    found = []
    for name, layer in module.named_modules():
        if most > 1.0 and isinstance(layer, WEIGHTED):
            fresh = (3 * layer.weight[0].numel()) ** -0.5  # uniform within 1 / sqrt(fan-in), as torch draws it
            factor = min(most, float(layer.weight.detach().square().mean().sqrt()) / fresh)
            if factor > 1.0:
                found.append(_Boosted(f"{name}.weight".lstrip("."), layer.weight, factor))
    return found
