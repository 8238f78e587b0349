"""Differentiable choice against a random one, against none, and against what else its FLOPs would buy.

    python tools/bench/search/choice.py --seeds 0 1 2 --out docs/search/choice.json

Every arm trains the weights for as many steps: the base, the round, and behind it; but for "longer", which trains the
present operators for as many FLOPs as the choice took in training, and so for many more steps. The net of "wider" has
as many FLOPs as the one that was chosen.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from graphgrow.bulk.scale import plan_scale
from graphgrow.data.evaluation import score
from graphgrow.data.names import load_data
from graphgrow.graph import Graph
from graphgrow.network.own import own
from graphgrow.rewrite.apply import apply
from graphgrow.search.choosing import choose, open_sites
from graphgrow.search.evaluate import base
from graphgrow.search.job import stream_seed
from graphgrow.search.recipe import Choosing, read_recipe
from graphgrow.search.training import PASSES, train
from tools.bench.results import Rows, missing, parser, table
from tools.bench.search import DEPENDS

ARMS = {
    "alpha": "chosen by alpha",
    "random": "random choice",
    "present": "nothing opened, as many steps",
    "wider": "nothing opened, widened to as many FLOPs, as many steps",
    "longer": "nothing opened, as many FLOPs in training",
}
FACTORS = [1 + 0.05 * number for number in range(61)]  # of the widths that are tried


def measured(arm: str, seed: int, options: Any, known: Rows) -> dict[str, Any]:
    """One row: one round of the digits recipe."""
    plain = read_recipe(Choosing, "search", "digits", {"rounds": 1, "seed": seed})
    recipe = dataclasses.replace(
        plain,
        task=dataclasses.replace(plain.task, seed=seed),
        decide=arm if arm in ("alpha", "random") else "present",
        base=options.steps,
        finish=options.steps,
        alternation=dataclasses.replace(plain.alternation, steps=options.steps),
    )
    start = base(recipe.task)
    sample = PASSES * recipe.training.batch_size
    steps, reference = 2 * options.steps, next((row for row in known if row["key"] == f"alpha-{seed}"), {})
    if arm == "wider":
        graph, accuracies = widened(recipe, start, reference["flops"], steps)
        spent = sample * (options.steps * start.flops + steps * graph.flops)
        return row(arm, seed, graph.flops, spent, *accuracies)
    if arm == "longer":
        steps = round((reference["spent"] / sample - options.steps * start.flops) / start.flops)
        recipe = dataclasses.replace(recipe, finish=steps - options.steps)
    (record,) = choose(recipe).rounds
    spent = sample * (options.steps * start.flops + steps * record.flops)
    if arm == "alpha":
        turns, opened = recipe.alternation, apply(start, open_sites(start, recipe.sites, recipe.choices)).flops
        both = turns.steps * (1 + (1 - turns.warm_up) / turns.every)
        spent = sample * (options.steps * (start.flops + record.flops) + both * opened)
    gap = record.loss_closed - record.loss_open
    return row(arm, seed, record.flops, spent, record.accuracy, record.test) | ({"gap": gap} if arm == "alpha" else {})


def row(arm: str, seed: int, flops: int, spent: float, accuracy: float, test: float) -> dict[str, Any]:
    """The row of one arm and seed."""
    known = {"arm": arm, "seed": seed, "flops": flops, "spent": spent, "accuracy": accuracy, "test": test}
    return {"key": f"{arm}-{seed}", **known}


def widened(recipe: Choosing, start: Graph, flops: int, steps: int) -> tuple[Graph, tuple[float, float]]:
    """The base, trained, widened to the FLOPs that are nearest, and trained on; its accuracies."""
    data, graph = load_data(recipe.task.data), own(start)
    train(graph, data, recipe.training, "steps", recipe.base, stream_seed(recipe.seed, "base"))
    plans = [plan_scale(graph, width=factor, multiple=1).mutations for factor in FACTORS]
    tried = [apply(graph, mutations, seed=recipe.seed) for mutations in dict.fromkeys(plans)]
    grown = own(min(tried, key=lambda one: abs(one.flops - flops)))
    train(grown, data, recipe.training, "steps", steps, stream_seed(recipe.seed, "finish", 0))
    return grown, (score(grown.module, data.validation).accuracy, score(grown.module, data.test).accuracy)


def show(rows: Rows) -> str:
    """Medians over the seeds, arm by arm."""
    lines = []
    for arm, title in ARMS.items():
        mine = [row for row in rows if row["arm"] == arm]
        if mine:
            tests = [row["test"] for row in mine]
            spread = f"{100 * min(tests):.1f} to {100 * max(tests):.1f} %"
            kilo, giga = (statistics.median(row[name] for row in mine) for name in ("flops", "spent"))
            gap = f"{statistics.median(row['gap'] for row in mine):+.3f}" if arm == "alpha" else ""
            cells = [f"{100 * statistics.median(tests):.1f} %", spread, f"{kilo / 1e3:.0f}", f"{giga / 1e9:.1f}", gap]
            lines.append([title, str(len(mine)), *cells])
    head = ["arm", "seeds", "test accuracy (median)", "range", "kFLOPs", "GFLOPs of training", "gap in loss"]
    return table(head, lines)


def main() -> None:
    """Measure what is missing, and show all."""
    options = parser(__doc__, DEPENDS)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--steps", type=int, default=300)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    missing(given, ARMS, lambda arm, seed, known: measured(arm, seed, given, known), show)


if __name__ == "__main__":
    main()
