"""Averaged weights (EMA, SWA) that follow a growth."""

from __future__ import annotations

import dataclasses

from torch import fx
from torch.optim.swa_utils import AveragedModel

from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.rewrite.apply import replay
from graphgrow.train.growing import growing_in


def averaged_network(averaged: AveragedModel) -> fx.GraphModule:
    """The network that is averaged: the averaged module itself, or the growing one in it.

    Raises:
        TrainingError: if it does not average a graph's module, nor a model with one growing module.
    """
    if isinstance(averaged.module, fx.GraphModule):
        return averaged.module
    try:
        return growing_in(averaged.module).module
    except TrainingError as error:
        raise TrainingError(f"what is averaged cannot grow along: {error}, or average grower.module") from None


def put_average(averaged: AveragedModel, network: fx.GraphModule, graph: Graph) -> None:
    """Put a network of the structure of `graph` in the place of the one that is averaged."""
    if isinstance(averaged.module, fx.GraphModule):
        averaged.module = network
    else:
        growing_in(averaged.module).become(dataclasses.replace(graph, module=network))


def follow_growth(averaged: AveragedModel, parent: Graph, child: Graph) -> None:
    """Grow an averaged model as its model has grown: by the same mutations with the same seeds.

    The average computes after it what it computed before, as the model does. New units start alike in both, and
    the count of averaged steps goes on.

    Args:
        averaged: of the parent's module; its module is replaced.
        parent: the graph before.
        child: after the growth.

    Raises:
        TrainingError: if it does not average a graph's module.
        Declined: if a mutation would not be exact with the averaged numbers.
    """
    network = averaged_network(averaged)
    entries = child.ledger.after(parent.ledger)
    if entries is None:
        raise TrainingError("the second graph did not grow from the first")
    own = dataclasses.replace(parent, module=network)
    put_average(averaged, replay(own, entries).module, child)
