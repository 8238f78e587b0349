"""Differentiable choice against a random choice from the same candidates, with the same steps of the weights.

python tools/bench/search/choice.py --seeds 0 1 2 --out docs/search/choice.json
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from graphgrow.search.choosing import choose
from graphgrow.search.recipe import Choosing, read_recipe
from tools.bench.results import Results, Rows, finish, parser, table

ARMS = {"alpha": "chosen by alpha", "random": "random choice", "present": "nothing opened, trained as long"}


def measured(arm: str, seed: int, options: Any) -> dict[str, Any]:
    """One row: one round of the digits recipe at a small budget."""
    plain = read_recipe(Choosing, "search", "digits", {"rounds": 1, "seed": seed})
    turns = dataclasses.replace(plain.alternation, steps=options.steps)
    task = dataclasses.replace(plain.task, seed=seed)
    decide = "alpha" if arm == "alpha" else "random"
    changed = dataclasses.replace(
        plain, task=task, decide=decide, base=options.steps, finish=options.steps, alternation=turns
    )
    chosen = choose(dataclasses.replace(changed, decide="present") if arm == "present" else changed)
    (record,) = chosen.rounds
    return {
        "key": f"{arm}-{seed}",
        "arm": arm,
        "seed": seed,
        "accuracy": record.accuracy,
        "test": record.test,
        "parameters": record.parameters,
        "flops": record.flops,
        "gap": record.loss_closed - record.loss_open,
    }


def show(rows: Rows) -> str:
    """Medians over the seeds, arm by arm."""
    lines = []
    for arm, title in ARMS.items():
        mine = [row for row in rows if row["arm"] == arm]
        if mine:
            tests = [row["test"] for row in mine]
            spread = f"{100 * min(tests):.1f} to {100 * max(tests):.1f} %"
            kilo = statistics.median(row["flops"] for row in mine) / 1e3
            gap = f"{statistics.median(row['gap'] for row in mine):+.4f}" if arm == "alpha" else ""
            cells = [str(len(mine)), f"{100 * statistics.median(tests):.1f} %", spread, f"{kilo:.0f}", gap]
            lines.append([title, *cells])
    return table(["arm", "seeds", "test accuracy (median)", "range", "kFLOPs (median)", "gap in loss (median)"], lines)


def main() -> None:
    """Measure what is missing, and show all."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--steps", type=int, default=300)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    known = {row["key"] for row in Results.read(given.out).rows} if given.out else set()
    for seed in given.seeds:
        for arm in ARMS:
            if f"{arm}-{seed}" not in known:
                finish(given, [measured(arm, seed, given)], "key", show)


if __name__ == "__main__":
    main()
