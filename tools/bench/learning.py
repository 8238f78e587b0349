"""Does growing pay? Grown nets against nets from scratch, at equal architecture and at equal training FLOPs.

    python tools/bench/learning.py --out docs/learning/digits.json --seeds 5
    python tools/bench/learning.py --out docs/learning/digits.json --show

Every run is written as soon as it ends, and those that are in the file are not run again: interrupted, the same command
goes on. `--limit` ends it after so many seconds.

For each seed: the small net and the big net from scratch; the small net grown by each policy up to the big net's
FLOPs; and for `dnm`, as controls, the architecture that it ended with and the one it had half way, from scratch: for as
many epochs, and for as many training FLOPs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from graphgrow.data.names import load_data
from graphgrow.data.parts import Data
from graphgrow.graph import Graph
from graphgrow.models import ResNet
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.ledger import Ledger
from graphgrow.train.evaluation import score
from graphgrow.train.grower import Grower
from graphgrow.train.pace import Pace
from graphgrow.train.policy import make_policy
from graphgrow.train.schedule import Interval
from tools.bench.results import circumstances, parser, table

POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dnm": ("dnm", {}),
    "gradmax": ("gradmax", {}),
    "net2net": ("net2net", {}),
    "progressive": ("progressive", {}),
    "random": ("random", {}),
    "noisy split": ("net2net", {"noise": 0.1}),
}
CONTROLLED = ("dnm",)  # the policies whose architectures are trained from scratch as well


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        data: its name.
        options: of the data.
        small: builds the base.
        big: builds the reference.
        epochs: of every run but those at equal FLOPs.
        interval: epochs between growths.
        stages: growths at most.
    """

    data: str
    options: dict[str, Any]
    small: Callable[[], torch.nn.Module]
    big: Callable[[], torch.nn.Module]
    epochs: int
    interval: int
    stages: int = 4
    lr: float = 3e-3
    batch_size: int = 64


TASKS = {
    "digits": Task(
        "digits",
        {},
        lambda: ResNet(channels=1, widths=(3, 4), blocks=(1, 1)),
        lambda: ResNet(channels=1, widths=(12, 16), blocks=(1, 1)),
        epochs=60,
        interval=6,
    ),
    "patterns": Task(
        "patterns",
        {"count": 4000, "held_out": 1000, "variants": 3, "noise": 0.5},
        lambda: ResNet(widths=(4, 8, 16), blocks=(1, 1, 1)),
        lambda: ResNet(widths=(10, 20, 40), blocks=(1, 1, 1)),
        epochs=12,
        interval=2,
        stages=3,
    ),
}


def fit(graph: Graph, task: Task, data: Data, seed: int, epochs: int, grower: Grower | None = None) -> dict[str, Any]:
    """Train for some epochs, the last quarter with a falling learning rate, and measure on the test."""
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    optimizer = (
        torch.optim.AdamW(graph.module.parameters(), lr=task.lr, weight_decay=1e-2)
        if grower is None
        else grower._optimizer
    )
    assert optimizer is not None
    falling = max(1, round(epochs / 4))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1.0, (epochs - epoch) / falling))
    training, spent, half = data.training, 0, ""
    for epoch in range(epochs):
        module = graph.module.train()
        for batch in torch.randperm(len(training), generator=order).split(task.batch_size):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            if grower is None:
                F.cross_entropy(module(training.inputs[batch]), training.targets[batch]).backward()  # type: ignore[no-untyped-call]
            else:
                with grower.observe():
                    F.cross_entropy(module(training.inputs[batch]), training.targets[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            spent += 3 * graph.flops * len(batch)
        schedule.step()
        if grower is not None and epoch + 1 <= 0.6 * epochs:
            proposal = grower.propose(score(module, data.validation).loss)
            if proposal is not None:
                graph = grower.apply(proposal)
        if epoch + 1 == round(0.3 * epochs):
            half = graph.ledger.to_json()
    found = score(graph.module, data.test)
    return {
        "accuracy": found.accuracy,
        "loss": found.loss,
        "parameters": graph.parameter_count,
        "flops": graph.flops,
        "training_flops": spent,
        "ledger": graph.ledger.to_json(),
        "half": half,
    }


def traced(build: Callable[[], torch.nn.Module], data: Data, seed: int) -> Graph:
    """A model with weights from the seed."""
    torch.manual_seed(seed)
    return gg.trace(build(), data.training.inputs[:2])


def grown(task: Task, data: Data, seed: int, name: str, limit: int) -> dict[str, Any]:
    """The small net, grown by a policy up to a number of FLOPs."""
    graph = traced(task.small, data, seed)
    optimizer = torch.optim.AdamW(graph.module.parameters(), lr=task.lr, weight_decay=1e-2)
    policy, options = POLICIES[name]
    grower = Grower(
        graph,
        optimizer,
        make_policy(policy, **options),
        budget=gg.Budget(flops=limit),
        when=Interval(task.interval),
        most_stages=task.stages,
        pace=Pace(warm_up=50),
        every=5,
        held_out=lambda module: F.cross_entropy(module(data.validation.inputs[:256]), data.validation.targets[:256]),
        verify=False,  # exactness is tested elsewhere; this is about learning
        seed=seed,
    )
    return fit(graph, task, data, seed, task.epochs, grower)


def from_scratch(task: Task, data: Data, seed: int, ledger: str, epochs: int) -> dict[str, Any]:
    """The architecture that a ledger makes of the small net, all its weights drawn anew."""
    graph = replay(traced(task.small, data, seed), Ledger.from_json(ledger))
    torch.manual_seed(seed)
    for module in graph.module.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return fit(graph, task, data, seed, epochs)


def runs_of_seed(task: Task, data: Data, seed: int, rows: dict[str, Any]) -> list[tuple[str, Callable[[], Any]]]:
    """What is to be run for a seed, by name, in order; the controls need the rows of the runs before them."""
    big = traced(task.big, data, seed)
    limit = round(1.02 * big.flops)
    found: list[tuple[str, Callable[[], Any]]] = [
        ("small", lambda: fit(traced(task.small, data, seed), task, data, seed, task.epochs)),
        ("big", lambda: fit(traced(task.big, data, seed), task, data, seed, task.epochs)),
    ]

    def control(name: str, which: str, equal: str) -> dict[str, Any]:
        row = rows[f"{name}/{seed}"]
        epochs = task.epochs
        if equal == "FLOPs":
            one = replay(traced(task.small, data, seed), Ledger.from_json(row[which])).flops
            epochs = max(4, round(row["training_flops"] / (3 * one * len(data.training))))
        return from_scratch(task, data, seed, row[which], epochs)

    for name in POLICIES:
        found.append((name, lambda name=name: grown(task, data, seed, name, limit)))  # type: ignore[misc]
    for name in CONTROLLED:
        for which, equal in (("ledger", "epochs"), ("ledger", "FLOPs"), ("half", "FLOPs")):
            what = "final" if which == "ledger" else "half-way"
            label = f"{name}: {what} net from scratch, equal {equal}"
            found.append((label, lambda n=name, w=which, e=equal: control(n, w, e)))  # type: ignore[misc]
    return found


def show(rows: dict[str, Any]) -> str:
    """Mean and standard deviation over seeds, by run."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, row in rows.items():
        groups.setdefault(key.rpartition("/")[0], []).append(row)
    if "big" not in groups:
        return "no reference yet"
    reference = statistics.mean(row["training_flops"] for row in groups["big"])
    head = ["run", "seeds", "test accuracy, %", "parameters", "training FLOPs of big's, %"]
    order = [*(n for n in ("small", "big", *POLICIES) if n in groups), *(n for n in groups if ":" in n)]
    lines = []
    for name in order:
        accuracies = [100 * row["accuracy"] for row in groups[name]]
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        spent = statistics.mean(row["training_flops"] for row in groups[name])
        parameters = statistics.mean(row["parameters"] for row in groups[name])
        text = f"{statistics.mean(accuracies):.1f} ± {deviation:.1f}"
        lines.append([name, str(len(accuracies)), text, f"{parameters:,.0f}", f"{100 * spent / reference:.0f}"])
    return table(head, lines)


def main() -> None:
    """Read the command line, run what is missing, write."""
    options = parser(__doc__)
    options.add_argument("--task", choices=list(TASKS), default="digits")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--limit", type=float, default=240.0, help="seconds after which no further run begins")
    options.add_argument("--show", action="store_true", help="print the table of what is there, and run nothing")
    parsed = options.parse_args()
    torch.set_num_threads(parsed.threads)
    known = json.loads(parsed.out.read_text(encoding="utf-8")) if parsed.out and parsed.out.exists() else {"rows": {}}
    rows: dict[str, Any] = known["rows"]
    task, start = TASKS[parsed.task], time.perf_counter()
    if not parsed.show:
        data = load_data(task.data, **task.options)
        for seed in range(parsed.seed, parsed.seed + parsed.seeds):
            for name, run in runs_of_seed(task, data, seed, rows):
                key = f"{name}/{seed}"
                if key in rows or time.perf_counter() - start > parsed.limit:
                    continue
                begun = time.perf_counter()
                rows[key] = {**run(), "seconds": round(time.perf_counter() - begun, 1)}
                print(f"{key}: {rows[key]['accuracy']:.1%} in {rows[key]['seconds']} s", flush=True)
                if parsed.out:
                    parsed.out.parent.mkdir(parents=True, exist_ok=True)
                    about = circumstances(parsed)
                    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items())
                    text = f'{{"about": {json.dumps(about)}, "rows": {{\n{lines}\n}}}}\n'
                    parsed.out.write_text(text, encoding="utf-8")
    print(show(rows))


if __name__ == "__main__":
    main()
