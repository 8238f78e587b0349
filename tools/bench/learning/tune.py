"""How to grow, tuned: one choice at a time, judged by the validation part, with seeds that no report uses.

python tools/bench/learning/tune.py --task digits --out docs/learning/tuning.json
python tools/bench/learning/tune.py --task text --seeds 100 --choices "" "boost=1, forget=False" --out text.json
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from graphgrow.data.names import load_data
from graphgrow.data.parts import Data
from graphgrow.search.training import PASSES
from tools.bench.learning.course import Method, course, growing, traced
from tools.bench.learning.tasks import DEPENDS, TASKS, Task
from tools.bench.results import Results, Rows, finish, parser, table

SEEDS = (100, 101, 102)
CHOICES: dict[str, tuple[Any, ...]] = {
    "rounds": (2, 4, 8, 16, 24),
    "warm_up": (5, 20, 60),
    "boost": (1.0, 4.0, 10.0),
    "forget": (False, True),
    "anew": (False, True),
    "weight_decay": (1e-2, 0.3, 1.0),
}


def changes(text: str) -> dict[str, Any]:
    """What is otherwise than the task has it, of `NAME=VALUE, NAME=VALUE`; nothing of an empty text.

    Raises:
        argparse.ArgumentTypeError: if it is not of this form, or there is no such choice.
    """
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        found = {str(part.arg): ast.literal_eval(part.value) for part in call.keywords}
    except (SyntaxError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE, NAME=VALUE") from None
    if unknown := sorted(set(found) - {field.name for field in dataclasses.fields(Method)}):
        raise argparse.ArgumentTypeError(f"there is no choice {', '.join(unknown)}")
    return found


def named(choice: dict[str, Any]) -> str:
    """A choice as it is shown, and known by."""
    return ", ".join(f"{name} = {value}" for name, value in choice.items()) or "as the task has it"


def measured(task: Task, data: Data, policy: str, method: Method, seed: int) -> dict[str, Any]:
    """One run within half of the big net's FLOPs."""
    small, big = (traced(build, data, seed).flops for build in (task.small, task.big))
    options = {"stages": task.recipe} if policy == "progressive" and task.recipe else {}
    start = growing(task, data, seed, method, policy, options, (small, big))
    budget = PASSES * task.batch_size * big * task.steps // 2
    found = course(traced(task.small, data, seed), task, data, seed, budget, method, start)
    return {name: found[name] for name in ("validation_accuracy", "validation_loss", "parameters", "steps")}


def show(rows: Rows) -> str:
    """Means over the seeds."""
    groups: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        groups.setdefault((row["task"], row["policy"], row["choice"]), []).append(row)
    lines = []
    for (task, policy, choice), mine in groups.items():
        accuracy, loss = (
            statistics.mean(row[what] for row in mine) for what in ("validation_accuracy", "validation_loss")
        )
        lines.append([f"{task}, {policy}", choice, str(len(mine)), f"{100 * accuracy:.1f}", f"{loss:.3f}"])
    return table(["task, policy", "choice", "seeds", "validation accuracy, %", "validation loss"], lines)


def main() -> None:
    """Run what is missing, and write it."""
    options = parser(__doc__, DEPENDS)
    options.add_argument("--task", choices=list(TASKS), default="digits")
    options.add_argument("--policies", nargs="+", default=["progressive", "dnm"])
    options.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options.add_argument("--choices", type=changes, nargs="+", help="NAME=VALUE, ...; by default each of a list")
    options.add_argument("--limit", type=float, default=3600.0, help="seconds after which no further run begins")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    task, begun = TASKS[given.task], time.perf_counter()
    data = load_data(task.data, **task.options)
    known = {row["key"]: row for row in Results.read(given.out).rows} if given.out else {}
    tried = given.choices or [{name: value} for name, values in CHOICES.items() for value in values]
    for changed in tried:
        method, choice = dataclasses.replace(Method(**task.how), **changed), named(changed)
        for policy in given.policies:
            for seed in given.seeds:
                key = f"{given.task}/{policy}/{choice}/{seed}"
                if key in known or time.perf_counter() - begun > given.limit:
                    continue
                about = {"key": key, "task": given.task, "policy": policy, "choice": choice, "seed": seed}
                known[key] = {**about, **measured(task, data, policy, method, seed)}
                print(
                    f"{key}: {known[key]['validation_accuracy']:.1%}, {known[key]['validation_loss']:.3f}", flush=True
                )
                finish(given, [known[key]], "key", lambda _: "")
    print(show(list(known.values())))


if __name__ == "__main__":
    main()
