"""For how many steps it pays to train the big net of a task from scratch, as its validation part tells.

    python tools/bench/learning/plateau.py --task text --steps 1600 3200 6400 12800 --out docs/learning/plateau.json

Each number of steps is a run of its own, over which the learning rate rises and falls. Every run is written as soon as
it ends, and those that are in the file are not run again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from graphgrow.data.evaluation import score
from graphgrow.data.names import load_data
from graphgrow.data.parts import Data, Part
from graphgrow.search.training import PASSES
from tools.bench.learning.course import Method, course, traced
from tools.bench.learning.tasks import DEPENDS, TASKS, Task
from tools.bench.results import Rows, missing, parser, table


def measured(name: str, task: Task, data: Data, steps: int, seed: int) -> dict[str, Any]:
    """The big net from scratch with so many steps; its loss on training data tells what it has learned by heart."""
    graph = traced(task.big, data, seed)
    found = course(graph, task, data, seed, PASSES * task.batch_size * graph.flops * steps, Method(**task.how))
    count = len(data.validation)
    fitted = score(graph.module, Part(data.training.inputs[:count], data.training.targets[:count]))
    return {
        "key": f"{name}/{steps}-{seed}",
        "task": name,
        "seed": seed,
        **{part: found[part] for part in ("steps", "validation_accuracy", "validation_loss")},
        "training_loss": fitted.loss,
    }


def show(rows: Rows) -> str:
    """Run by run, the shortest of each task first."""
    lines = [
        [
            row["task"],
            f"{row['steps']:,}",
            str(row["seed"]),
            f"{100 * row['validation_accuracy']:.1f}",
            f"{row['validation_loss']:.3f}",
            f"{row['training_loss']:.3f}",
        ]
        for row in sorted(rows, key=lambda row: (row["task"], row["seed"], row["steps"]))
    ]
    head = ["big net of", "steps", "seed", "validation accuracy, %", "validation loss", "training loss"]
    return table(head, lines)


def main() -> None:
    """Run what is missing, and write it."""
    options = parser(__doc__, DEPENDS)
    options.add_argument("--task", choices=list(TASKS), default="text")
    options.add_argument("--steps", type=int, nargs="+", default=[1600, 3200, 6400, 12800])
    options.add_argument("--seeds", type=int, nargs="+", default=[100], help="that no report uses")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    task = TASKS[given.task]
    data = load_data(task.data, **task.options)
    arms = {f"{given.task}/{steps}": steps for steps in given.steps}
    missing(given, arms, lambda arm, seed, _: measured(given.task, task, data, arms[arm], seed), show)


if __name__ == "__main__":
    main()
