"""One run: a net trained for so many FLOPs, and grown on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import graphgrow as gg
from graphgrow.data.evaluation import loss_of, score
from graphgrow.data.parts import Data, batches
from graphgrow.graph import Graph
from graphgrow.network.ledger import Ledger
from graphgrow.rewrite.apply import replay
from graphgrow.search.training import PASSES, rate
from graphgrow.train.grower import Grower
from graphgrow.train.pace import Pace
from graphgrow.train.policy import make_policy
from graphgrow.train.schedule import Interval
from tools.bench.learning.tasks import Task

ROUNDS = 80  # a policy is asked, if it is time, so often in a run: after equal shares of its FLOPs


@dataclass(frozen=True)
class Method:
    """How a net is trained and grows; what is tuned on the validation part, and then the same for all rows.

    Attributes:
        rounds: from one growth to the next, of `ROUNDS`.
        warm_up: steps within which what is new comes to full pace.
        rate: learning rate of what is new, over that of the rest, behind its warm-up.
        decay: steps within which that falls to 1.
        boost: by how much weights that have become large are sped up at most, from each growth on.
        forget: whether the optimizer begins anew at a growth.
        rise: share of the budget in which the learning rate rises.
        anew: whether it rises and falls anew after each growth, over what is left of the budget.
        weight_decay: of AdamW.
    """

    rounds: int = 2
    warm_up: int = 5
    rate: float = 1.0
    decay: int = 0
    boost: float = 10.0
    forget: bool = True
    rise: float = 0.05
    anew: bool = False
    weight_decay: float = 1e-2


Start = Callable[[Graph, Optimizer], Grower]


def course(
    graph: Graph, task: Task, data: Data, seed: int, budget: int, method: Method, start: Start | None = None
) -> dict[str, Any]:
    """Train for a budget of FLOPs: the learning rate rises, and falls as half a cosine of what is spent.

    Args:
        graph: to begin with; its tensors are trained.
        task: what is learned.
        data: likewise.
        seed: of the order of the samples.
        budget: FLOPs, of forward and backward passes.
        method: how it grows.
        start: makes the grower; None is for a net that does not grow.
    """
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(
        graph.module.parameters(), lr=task.lr, betas=(0.9, 0.99), weight_decay=method.weight_decay
    )
    grower = None if start is None else start(graph, optimizer)
    last = method.rounds * (task.stages + 1)  # the round behind which no net asks: one stage more than are needed
    spent, begun, steps, rounds, ledgers = 0, 0, 0, 0, [graph.ledger.to_json()]
    for inputs, targets in batches(data.training, task.batch_size, seed):
        if spent >= budget:
            break
        for group in optimizer.param_groups:
            group["lr"] = task.lr * rate((spent - begun) / (budget - begun), method.rise)
        module = graph.module.train()
        optimizer.zero_grad()
        if grower is None:
            loss_of(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
        else:
            with grower.observe():
                loss_of(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        spent += PASSES * graph.flops * len(inputs)
        steps += 1
        if grower is not None and rounds < last and spent * ROUNDS >= (rounds + 1) * budget:
            rounds += 1
            proposal = grower.propose()
            if proposal is not None:
                graph = grower.apply(proposal)
                begun = spent if method.anew else begun
                ledgers.append(graph.ledger.to_json())
    found, chosen = score(graph.module, data.test), score(graph.module, data.validation)
    return {
        "accuracy": found.accuracy,
        "loss": found.loss,
        "validation_accuracy": chosen.accuracy,
        "validation_loss": chosen.loss,
        "parameters": graph.parameter_count,
        "flops": graph.flops,
        "training_flops": spent,
        "steps": steps,
        "ledgers": ledgers,
    }


def traced(build: Callable[[], torch.nn.Module], data: Data, seed: int) -> Graph:
    """A model with weights from the seed."""
    torch.manual_seed(seed)
    return gg.trace(build(), data.training.inputs[:2])


def from_scratch(task: Task, data: Data, seed: int, ledger: str) -> Graph:
    """The architecture that a ledger makes of the small net, all its weights drawn anew.

    Embeddings are drawn as small as the model draws them, not with torch's deviation of 1, which learns otherwise.
    """
    graph = replay(traced(task.small, data, seed), Ledger.from_json(ledger))
    torch.manual_seed(seed)
    for module in graph.module.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=float(module.weight.detach().std()))
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return graph


def growing(
    task: Task, data: Data, seed: int, method: Method, policy: str, options: dict[str, Any], flops: tuple[int, int]
) -> Start:
    """A grower from the small net's FLOPs towards the big net's, in stages of the same factor."""
    small, big = flops
    factor = (big / small) ** (1 / task.stages)

    def start(graph: Graph, optimizer: Optimizer) -> Grower:
        return Grower(
            graph,
            optimizer,
            make_policy(policy, **{"growth": factor, **options}),
            budget=gg.Budget(flops=round(1.03 * big)),
            when=Interval(method.rounds),
            most_stages=task.stages + 1,
            pace=Pace(method.rate, method.warm_up, method.decay, method.boost, method.forget),
            every=10,
            held_out=lambda module: loss_of(module(data.validation.inputs[:256]), data.validation.targets[:256]),
            verify=False,  # exactness is tested elsewhere; this is about learning
            seed=seed,
        )

    return start
