"""Hypervolume at an equal budget of evaluations: inherited weights, fresh weights, random search, a grid of widths.

    python tools/bench/search/arms.py --seeds 0 1 2 --out docs/search/arms.json --studies runs/arms

Every arm evaluates as many candidates, each trained for as many steps, on scikit-learn's digits. A study that is there
already goes on; a row that is in the file already is not measured again.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from graphgrow.bulk.scale import plan_scale
from graphgrow.data.evaluation import score
from graphgrow.network.own import own
from graphgrow.rewrite.apply import apply
from graphgrow.search.engine import Reply, Request
from graphgrow.search.evaluate import base, data_of, evaluate
from graphgrow.search.evolve import begin, evolve
from graphgrow.search.job import stream_seed
from graphgrow.search.recipe import Budget, Evolution, read_recipe
from graphgrow.search.selection import hypervolume
from graphgrow.search.training import train
from tools.bench.results import Rows, missing, parser, table
from tools.bench.search import DEPENDS

WORST = (1.0, 500_000.0)  # error and FLOPs: the box is that of all accuracies
ARMS = ("inherited", "fresh", "random", "grid")
TITLES = {
    "inherited": "evolution, inherited weights",
    "fresh": "evolution, each candidate from scratch",
    "random": "random search from the base, inherited weights",
    "grid": "grid of widths from the base, inherited weights",
}


class Inline:
    """A crew of this process alone."""

    size = 1
    states: Mapping[int, str] = {}

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Request]] = []

    def start(self, ticket: int, request: Request) -> None:
        """Take a request."""
        self._waiting.append((ticket, request))

    def wait(self, seconds: float) -> Sequence[Reply]:
        """Evaluate it."""
        ticket, request = self._waiting.pop()
        return [Reply(ticket, evaluate(request))]

    def give_up(self, ticket: int) -> None:
        """Nothing runs by itself."""

    def close(self) -> None:
        """Nothing to close."""


def recipe(arm: str, seed: int, steps: int, generations: int, offspring: int) -> Evolution:
    """The digits recipe at a small budget, as one arm of the comparison."""
    plain = read_recipe(Evolution, "evolve", "digits", {"generations": generations, "offspring": offspring})
    variation = plain.variation
    if arm == "fresh":
        variation = dataclasses.replace(variation, inherit=False)
    if arm == "random":
        variation = dataclasses.replace(variation, most=2 * generations, crossover=0.0)
    return dataclasses.replace(
        plain,
        seed=seed,
        population=offspring,
        parents="base" if arm == "random" else "population",
        variation=variation,
        budget=Budget(base=2 * steps, child=steps),
    )


def measured(arm: str, seed: int, options: Any) -> dict[str, Any]:
    """One row: the hypervolume that one arm reaches with one seed."""
    chosen = recipe(arm, seed, options.steps, options.generations, options.offspring)
    if arm == "grid":
        points = grid(chosen)
    else:
        with begin(chosen, options.studies / f"{arm}-{seed}") as study:
            state = evolve(chosen, study, Inline())
        points = [state.point(record) for record in state.valid()]
    return {
        "key": f"{arm}-{seed}",
        "arm": arm,
        "seed": seed,
        "evaluations": len(points),
        "hypervolume": hypervolume(points, WORST),
        "accuracy": 1 - min(point[0] for point in points),
    }


def grid(chosen: Evolution) -> list[tuple[float, ...]]:
    """All widths multiplied by the same factor, from 1 to 4, in as many steps as the others have evaluations."""
    data, count = data_of(chosen.task.data), chosen.generations * chosen.offspring
    start = own(base(chosen.task))
    train(start, data, chosen.training, "steps", chosen.budget.base, stream_seed(chosen.seed, "grid"))
    points: list[tuple[float, ...]] = [(1 - score(start.module, data.validation).accuracy, float(start.flops))]
    for number in range(count):
        wider = plan_scale(start, width=1 + 3 * (number + 1) / count).mutations  # none, where all widths round down
        grown = own(apply(start, wider, seed=number))
        train(grown, data, chosen.training, "steps", chosen.budget.child, stream_seed(chosen.seed, "grid", number))
        points.append((1 - score(grown.module, data.validation).accuracy, float(grown.flops)))
    return points


def show(rows: Rows) -> str:
    """Median and range over the seeds, arm by arm."""
    lines = []
    for arm in ARMS:
        mine = [row for row in rows if row["arm"] == arm]
        if not mine:
            continue
        volumes, best = ([row[name] for row in mine] for name in ("hypervolume", "accuracy"))
        spread = f"{min(volumes):.3f} to {max(volumes):.3f}"
        evaluations = max(row["evaluations"] for row in mine)
        cells = [str(len(mine)), str(evaluations), f"{statistics.median(volumes):.3f}", spread]
        lines.append([TITLES[arm], *cells, f"{100 * statistics.median(best):.1f} %"])
    return table(["arm", "seeds", "evaluations", "hypervolume (median)", "range", "best accuracy (median)"], lines)


def main() -> None:
    """Measure what is missing, and show all."""
    options = parser(__doc__, DEPENDS)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--generations", type=int, default=4)
    options.add_argument("--offspring", type=int, default=6)
    options.add_argument("--studies", type=Path, default=Path("runs/arms"))
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    missing(given, ARMS, lambda arm, seed, known: measured(arm, seed, given), show)


if __name__ == "__main__":
    main()
