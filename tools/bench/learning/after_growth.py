"""What the loss does in the 30 steps after a growth, at an unchanged learning rate, by what becomes of the optimizer.

    python tools/bench/learning/after_growth.py
    python tools/bench/learning/after_growth.py --optimizer rmsprop-centred --growths deepen

A net is trained on the digits, then twins of it go on for 30 steps on the same batches: one is not grown, the others
are grown, with the optimizer's state carried over and new entries warmed up, carried over alone, padded with zeros
(second moments too), or reset. Each step the loss on the whole training part is taken; the figures are its largest and
its mean value over the 30 steps, each over that of the twin that was not grown: medians over seeds, and of the largest
the worst seed as well.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import graphgrow as gg
from graphgrow.data.digits import digits
from graphgrow.data.parts import Part
from graphgrow.graph import Graph
from graphgrow.models import MLP, ResNet
from graphgrow.train.newness import newness
from graphgrow.train.pace import Newcomers, Pace
from tools.bench.results import parser, table

STEPS = 30
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "rmsprop-centred": partial(torch.optim.RMSprop, centered=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}
WAYS = ("carried, warmed up", "carried", "zeros", "reset")
MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, list[str]]]] = {
    "mlp": (
        lambda: MLP(channels=1, image_size=8, hidden=(12, 12)),
        {
            "widen": ["widen(layers.0, extra=6)", "widen(layers.3, extra=6)"],
            "split": ["split(layers.0)", "split(layers.3)"],
            "split apart": ["split(layers.0, apart=true)", "split(layers.3, apart=true)"],
            "deepen": ["deepen(layers.1, kind=mlp)"],
        },
    ),
    "resnet": (
        lambda: ResNet(channels=1, widths=(4, 8), blocks=(1, 1)),
        {
            "widen": ["widen(stem, extra=4)", "widen(stages.1.0.conv1, extra=8)"],
            "split": ["split(stem)", "split(stages.1.0.conv1)"],
            "split apart": ["split(stem, apart=true)", "split(stages.1.0.conv1, apart=true)"],
            "deepen": ["deepen(stages.0.0, kind=copy)"],
        },
    ),
}


def steps(graph: Graph, optimizer: torch.optim.Optimizer, part: Part, seed: int, count: int) -> list[float]:
    """Train for some steps on batches that the seed gives; the loss on the whole part after each."""
    order = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(count):
        batch = torch.randint(len(part), (64,), generator=order)
        optimizer.zero_grad()
        F.cross_entropy(graph.module.train()(part.inputs[batch]), part.targets[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            losses.append(float(F.cross_entropy(graph.module.eval()(part.inputs), part.targets)))
    return losses


Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def twin(graph: Graph, optimizer: torch.optim.Optimizer, make: Make) -> tuple[Graph, torch.optim.Optimizer]:
    """A copy of a graph and of its optimizer."""
    own = gg.apply(graph, [], share=False)
    module = copy.deepcopy(graph.module)
    own = type(graph)(module, graph.inputs, graph.ledger, graph.way, graph.modes, graph.notes, graph.base, graph.steps)
    made = make(own.module.parameters())
    made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return own, made


def measure(
    model: str, kind: str, make: Make, seed: int, part: Part, warm_up: int | None = None
) -> dict[str, tuple[float, float]]:
    """By way, the largest and the mean loss over those of the twin that was not grown."""
    build, growths = MODELS[model]
    torch.manual_seed(seed)
    graph = gg.trace(build(), part.inputs[:2])
    optimizer = make(graph.module.parameters())
    steps(graph, optimizer, part, seed, 200)
    plain = steps(*twin(graph, optimizer, make), part, seed + 100, STEPS)
    found = {}
    for way in WAYS:
        mine, theirs = twin(graph, optimizer, make)
        new = newness(mine, growths[kind], seed)
        newcomers = Newcomers(theirs, Pace.under(theirs) if warm_up is None else Pace(warm_up=warm_up))
        child = gg.apply(mine, growths[kind], seed=seed, optimizer=theirs)
        if way == "carried, warmed up":
            newcomers.welcome(child.module, new.paces)
        if way == "reset":
            theirs = make(child.module.parameters())
        if way == "zeros":
            for name, entries in new.entries.items():
                for state in theirs.state.get(child.module.get_parameter(name), {}).values():
                    if state.shape == entries.shape:
                        state[entries] = 0
        losses = steps(child, theirs, part, seed + 100, STEPS)
        found[way] = max(losses) / max(plain), statistics.mean(losses) / statistics.mean(plain)
    return found


def main() -> None:
    """Read the command line, run, print."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--lr", type=float, default=3e-3)
    options.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    options.add_argument("--warm-up", type=int, help="steps; by default as many as a Grower takes under the optimizer")
    options.add_argument("--growths", nargs="+", default=["widen", "split", "split apart", "deepen"])
    parsed = options.parse_args()
    torch.set_num_threads(parsed.threads)
    part = digits().training
    make = partial(OPTIMIZERS[parsed.optimizer], lr=parsed.lr)
    lines = []
    for model, (_, growths) in MODELS.items():
        for kind in (one for one in growths if one in parsed.growths):
            runs = [measure(model, kind, make, seed, part, parsed.warm_up) for seed in range(parsed.seeds)]
            cells = []
            for way in WAYS:
                largest, mean = ([run[way][index] for run in runs] for index in (0, 1))
                median = statistics.median
                cells.append(f"{median(largest):.3f} ({max(largest):.3f}), {median(mean):.3f}")
            lines.append([f"{model}, {kind}", *cells])
            print(lines[-1], flush=True)
    print(table(["growth", *WAYS], lines))


if __name__ == "__main__":
    main()
