"""Training a classifier to its plateau."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.data.evaluation import Score, loss_of, score
from graphgrow.data.parts import Data, Part
from graphgrow.layers import Blend


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        batch_size: of the mini-batches.
        patience: epochs without a lower validation loss after which the plateau is reached.
        max_epochs: of one stage up to there, whatever the loss does.
        settling: epochs behind the plateau at a tenth of the learning rate.
    """

    batch_size: int = 64
    patience: int = 20
    max_epochs: int = 250
    settling: int = 12


def train_to_plateau(
    model: nn.Module,
    optimizer: Optimizer,
    data: Data,
    settings: Settings,
    generator: torch.Generator,
    watch: Callable[[int, Score], None] = lambda epoch, now: None,
) -> int:
    """Train until the validation loss falls no more, settle from where it was lowest, and keep the lowest.

    If that is not below the loss before training, all goes back to where it was, so that the validation loss never
    rises from stage to stage. The learning rate is at the end what it was at the start.

    Args:
        model: trained in place.
        optimizer: over its parameters; it goes back together with the model.
        data: training and validation parts are used.
        settings: when to stop.
        generator: shuffles the training part.
        watch: is told the epoch, from 1, and the validation score after each.

    Returns:
        How many epochs were run.
    """
    before = _Snapshot.of(model, optimizer, score(model, data.validation).loss)
    best = replace(before, loss=math.inf)
    rates = [group["lr"] for group in optimizer.param_groups]
    waited = epoch = 0

    def one_epoch() -> _Snapshot:
        _one_epoch(model, optimizer, data.training, settings.batch_size, generator)
        now = score(model, data.validation)
        watch(epoch, now)
        return _Snapshot.of(model, optimizer, now.loss) if now.loss < best.loss else best

    while epoch < settings.max_epochs and waited < settings.patience:
        epoch += 1
        found = one_epoch()
        waited = 0 if found is not best else waited + 1
        best = found
    best.restore(model, optimizer)
    _set_rates(optimizer, [rate / 10 for rate in rates])
    for _ in range(settings.settling):
        epoch += 1
        best = one_epoch()
    (best if best.loss < before.loss else before).restore(model, optimizer)
    _set_rates(optimizer, rates)
    model.eval()
    return epoch


def pass_over(
    model: nn.Module, optimizer: Optimizer, data: Data, settings: Settings, generator: torch.Generator
) -> int:
    """Train while every blend of two activations is moved from the old one to the new one, in equal steps.

    At the end the new one has all the share, and keeps it: the shares are no longer trained.

    Returns:
        How many epochs were run: none where there is no blend on its way.
    """
    blends = [part for part in model.modules() if isinstance(part, Blend) and part.s.requires_grad]
    for epoch in range(settings.settling if blends else 0):
        with torch.no_grad():
            for blend in blends:
                blend.s.requires_grad_(False).fill_((epoch + 1) / settings.settling)
        _one_epoch(model, optimizer, data.training, settings.batch_size, generator)
    return settings.settling if blends else 0


@dataclass(frozen=True)
class _Snapshot:
    """The state of a model and its optimizer, and the validation loss there."""

    loss: float
    model: dict[str, Any]
    optimizer: dict[str, Any]

    @classmethod
    def of(cls, model: nn.Module, optimizer: Optimizer, loss: float) -> _Snapshot:
        return cls(loss, *copy.deepcopy((model.state_dict(), optimizer.state_dict())))

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        model.load_state_dict(self.model)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer))  # it would train on in the very tensors it is given


def _set_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _one_epoch(model: nn.Module, optimizer: Optimizer, part: Part, batch_size: int, generator: torch.Generator) -> None:
    model.train()
    for batch in torch.randperm(len(part), generator=generator).split(batch_size):  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        loss_of(model(part.inputs[batch]), part.targets[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
