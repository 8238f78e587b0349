"""What a recipe says of growth and of averaged weights, as objects."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from graphgrow.graph import Graph
from graphgrow.train.budget import Budget
from graphgrow.train.grower import Grower
from graphgrow.train.measuring import Loss
from graphgrow.train.pace import Pace
from graphgrow.train.policy import make_policy
from graphgrow.train.recipe import GrowthPart, Recipe
from graphgrow.train.schedule import Interval, Plateau, Schedule


def average_of(module: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of a module and its buffers; None where the decay is 0."""
    if decay == 0:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def grower_of(
    recipe: Recipe, graph: Graph, optimizer: Optimizer, averaged: AveragedModel | None, held_out: Loss
) -> Grower:
    """The grower that a recipe asks for; where it does not speak of growth, one that never grows.

    Growths are not verified by it: the stages of the trainer do that.

    Args:
        recipe: its `growth` and `seed`.
        graph: to begin with.
        optimizer: over its parameters.
        averaged: the average of its module, if there is one.
        held_out: the loss on data that is not trained on.
    """
    part = recipe.growth or GrowthPart(stages=0)
    when: Schedule = Plateau(part.plateau) if part.plateau else Interval(part.interval)
    pace = replace(Pace.under(optimizer), boost=part.boost, forget=part.forget)
    return Grower(
        graph,
        optimizer,
        make_policy(part.policy, **part.options),
        budget=Budget(part.parameters or None, part.flops or None, part.latency_ms or None),
        when=when,
        cool_down=part.cool_down,
        most_stages=part.most_stages,
        averaged=averaged,
        pace=replace(pace, warm_up=pace.warm_up if part.warm_up is None else part.warm_up),
        every=part.every,
        held_out=held_out,
        rollback_after=part.rollback_after or None,
        rollback_margin=part.rollback_margin,
        verify=False,
        seed=recipe.seed,
    )
