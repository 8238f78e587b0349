"""Training one candidate for a budget."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from graphgrow.data.evaluation import loss_of
from graphgrow.data.parts import Data, batches
from graphgrow.errors import SearchError
from graphgrow.graph import Graph
from graphgrow.search.progress import Progress
from graphgrow.search.recipe import Training

PASSES = 3  # FLOPs of forward and backward together, in forward passes


def train(
    graph: Graph,
    data: Data,
    training: Training,
    unit: str,
    amount: float,
    seed: int,
    progress: Progress | None = None,
) -> list[float]:
    """Train a graph's module in place for a budget.

    Args:
        graph: its parameters should be its own.
        data: the training part is used.
        training: how.
        unit: of the amount, as `Budget.unit`.
        amount: of training.
        seed: of the order of the samples and of dropout.
        progress: where the steps are kept, and begin; None begins with the first.

    Returns:
        The loss of each step.

    Raises:
        SearchError: if a loss is not finite.
        ModeError: if the graph does not hold in both modes; it is in eval mode afterwards.
    """
    graph.require_modes("train", "eval")
    pace = _Pace(unit, amount, graph, training.batch_size)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in graph.module.parameters() if parameter.requires_grad],
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    progress = progress or Progress()
    graph.module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, found = progress.begin(graph.module, optimizer)
        losses: list[float] = found.get("losses", [])
        for inputs, targets in batches(data.training, training.batch_size, seed, len(losses)):
            done = pace.done(len(losses))
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * rate(done, training.warm_up)
            optimizer.zero_grad()
            loss = loss_of(graph.module(inputs), targets)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise SearchError(f"the loss is {losses[-1]} in step {len(losses)}; lower the learning rate")
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress.passed(len(losses), graph.module, optimizer, losses=losses)
    graph.module.eval()
    return losses


def rate(done: float, warm_up: float) -> float:
    """The learning rate at a share of the budget, as a share of the highest: a linear rise, then half a cosine."""
    if done < warm_up:
        return max(done / warm_up, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / max(1 - warm_up, 1e-9)))


@dataclass
class _Pace:
    """How much of a budget is spent."""

    unit: str
    amount: float
    graph: Graph
    batch_size: int

    def __post_init__(self) -> None:
        self._start = time.perf_counter()
        self._each = PASSES * self.batch_size * self.graph.flops if self.unit == "flops" else 1

    def done(self, steps: int) -> float:
        """The share that is spent after so many steps."""
        if self.amount <= 0:
            return 1.0
        spent = time.perf_counter() - self._start if self.unit == "seconds" else steps * self._each
        return spent / self.amount
