"""Averaged weights (EMA, SWA) that follow a growth."""

from __future__ import annotations

import dataclasses

from torch import fx
from torch.optim.swa_utils import AveragedModel

from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.rewrite.apply import replay


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
    if not isinstance(averaged.module, fx.GraphModule):
        raise TrainingError(
            f"the averaged model holds a {type(averaged.module).__name__}; make it from the graph: "
            "AveragedModel(grower.module)"
        )
    entries = child.ledger.after(parent.ledger)
    if entries is None:
        raise TrainingError("the second graph did not grow from the first")
    own = dataclasses.replace(parent, module=averaged.module)
    averaged.module = replay(own, entries).module
