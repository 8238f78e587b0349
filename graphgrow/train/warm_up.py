"""gg.warm_up: what `gg.apply` made new comes to full pace within some steps, in a loop without a `Grower`."""

from __future__ import annotations

from torch.optim import Optimizer

from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.network.network import require_network
from graphgrow.rewrite.optimizer import Migration
from graphgrow.train.newness import newness_along
from graphgrow.train.pace import Newcomers, Pace


def warm_up(parent: Graph, child: Graph, optimizer: Optimizer, steps: int | None = None) -> None:
    """Let the updates of what a growth made new rise from zero to full pace, as a `gg.Grower` does.

    Without it new weights move at once as far as all others, and so does each copy of a split, which together go
    several times as far: the loss may rise for some steps. Call it behind `gg.apply`, before the next step:

        grown = gg.apply(graph, "split(stem)", optimizer=optimizer)
        gg.warm_up(graph, grown, optimizer)

    Args:
        parent: the graph before.
        child: what `gg.apply` made of it, by one call or several.
        optimizer: that was carried over; hooks on it slow the steps down.
        steps: until full pace; by default 100, and 200 under optimizers that do not correct for the few gradients that
            new parameters have seen (RMSprop, Adagrad).

    Raises:
        TrainingError: if the child did not grow from the parent, or `steps` is negative.
        OptimizerError: if it is not known what the optimizer keeps, or it trains nothing of the child.
    """
    for graph in (parent, child):
        require_network(graph, "gg.warm_up")
    entries = child.ledger.after(parent.ledger)
    if entries is None:
        raise TrainingError(
            "the second graph did not grow from the first; give the graph before `gg.apply`, then its result"
        )
    if steps is not None and steps < 0:
        raise TrainingError(f"steps={steps}: the warm-up takes 0 steps at least")
    Migration(optimizer).require_any(child.module.parameters())
    newcomers = Newcomers(optimizer, Pace.under(optimizer) if steps is None else Pace(warm_up=steps))
    newcomers.welcome(child.module, newness_along(parent, [(entry.mutation, entry.seed) for entry in entries]).paces)
