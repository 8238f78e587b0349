"""Does growing pay? Grown nets against nets from scratch, at equal training FLOPs and at equal architecture.

    python tools/bench/learning/run.py --task digits --out docs/learning/digits.json --seeds 0 1 2 3 4

Every run is written as soon as it ends, and those that are in the file are not run again: interrupted, the same command
goes on. `--limit` ends it after so many seconds.

For each seed: the big net from scratch, with the task's steps and with a half and a quarter of them, and with a longer
rise of its learning rate, since a grown net has had the small one's steps to begin with; the small net with
as many FLOPs as half of the big one's; the small net grown by each policy of the task to the big net's FLOPs, within
half of its training FLOPs (`dnm`, `progressive` and `stack` within a quarter as well); and as controls, from scratch
and with the same training FLOPs, the architectures that these ended with and had half way. `--arms` runs some alone.
What is tuned (see tune.py) is the same for all policies of a task.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from graphgrow.data.names import load_data
from graphgrow.data.parts import Data
from graphgrow.search.training import PASSES
from tools.bench.learning.course import Method, course, from_scratch, growing, traced
from tools.bench.learning.tasks import DEPENDS, TASKS, Task
from tools.bench.results import Results, Rows, circumstances, finish, parser, table

POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dnm": ("dnm", {}),
    "gradmax": ("gradmax", {}),
    "net2net": ("net2net", {}),
    "progressive": ("progressive", {}),
    "random": ("random", {}),
    "noisy split": ("net2net", {"noise": 0.1}),
    "stack": ("stack", {}),
}
AT_A_QUARTER = ("dnm", "progressive", "stack")
# Of which the first, last or middle net is taken.
CONTROLS: tuple[tuple[str, int | str], ...] = (
    ("dnm", -1),
    ("dnm", "half"),
    ("progressive", -1),
    ("progressive", "half"),
    ("stack", "half"),
)

LONGER_RISE = 0.2  # share of the budget

Run = Callable[[], dict[str, Any]]


def runs(task: Task, data: Data, seed: int, known: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Run]]:
    """The runs of one seed by arm, in order; a control needs the row of the run before it."""
    small, big = (traced(build, data, seed).flops for build in (task.small, task.big))
    step = PASSES * task.batch_size
    whole = step * big * task.steps
    method = Method(**task.how)

    def plain(build: Callable[[], torch.nn.Module], budget: int, method: Method = method) -> dict[str, Any]:
        return course(traced(build, data, seed), task, data, seed, budget, method)

    def grown(name: str, budget: int) -> dict[str, Any]:
        policy, options = POLICIES[name]
        if name == "progressive" and task.recipe:
            options = {**options, "stages": task.recipe}
        start = growing(task, data, seed, method, policy, options, (small, big))
        return course(traced(task.small, data, seed), task, data, seed, budget, method, start)

    def scratch(name: str, which: int | str) -> dict[str, Any]:
        ledgers = known[f"{name}, 1/2 of the FLOPs/{seed}"]["ledgers"]
        ledger = ledgers[len(ledgers) // 2 if which == "half" else -1]
        return course(from_scratch(task, data, seed, ledger), task, data, seed, whole // 2, method)

    yield "small, 1/2 of the FLOPs", partial(plain, task.small, whole // 2)
    yield "big", partial(plain, task.big, whole)
    yield "big, 1/2 of the FLOPs", partial(plain, task.big, whole // 2)
    yield "big, 1/4 of the FLOPs", partial(plain, task.big, whole // 4)
    for name in task.policies:
        yield f"{name}, 1/2 of the FLOPs", partial(grown, name, whole // 2)
    for name, which in (control for control in CONTROLS if control[0] in task.policies):
        net = "the net that it had half way" if which == "half" else "its final net"
        yield f"{name}: {net} from scratch, 1/2 of the FLOPs", partial(scratch, name, which)
    for name in (name for name in AT_A_QUARTER if name in task.policies):
        yield f"{name}, 1/4 of the FLOPs", partial(grown, name, whole // 4)
    gentle = replace(method, rise=LONGER_RISE)
    yield "big, its learning rate rising for a fifth", partial(plain, task.big, whole, gentle)
    yield "big, its learning rate rising for a fifth, 1/2 of the FLOPs", partial(plain, task.big, whole // 2, gentle)


def show(rows: Rows) -> str:
    """Mean and standard deviation over the seeds, arm by arm."""
    arms = {row["arm"]: [one for one in rows if one["arm"] == row["arm"]] for row in rows}
    reference = statistics.mean(row["training_flops"] for row in arms["big"])
    lines = []
    for arm, mine in sorted(arms.items(), key=lambda item: item[1][0]["order"]):
        accuracies = [100 * row["accuracy"] for row in mine]
        spread = f" ± {statistics.stdev(accuracies):.1f}" if len(mine) > 1 else ""
        losses, sizes, spent = (
            statistics.mean(row[what] for row in mine) for what in ("loss", "parameters", "training_flops")
        )
        cells = [f"{statistics.mean(accuracies):.1f}{spread}", f"{losses:.3f}", f"{sizes:,.0f}"]
        lines.append([arm, str(len(mine)), *cells, f"{100 * spent / reference:.0f}"])
    return table(["run", "seeds", "test accuracy, %", "test loss", "parameters", "training FLOPs of big's, %"], lines)


def main() -> None:
    """Run what is missing, and write it."""
    options = parser(__doc__, DEPENDS)
    options.add_argument("--task", choices=list(TASKS), default="digits")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--arms", nargs="+", help="names of rows; by default all of them")
    options.add_argument("--limit", type=float, default=3600.0, help="seconds after which no further run begins")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    task, begun = TASKS[given.task], time.perf_counter()
    data = load_data(task.data, **task.options)
    unknown = set(given.arms or ()) - {arm for arm, _ in runs(task, data, 0, {})}
    if unknown:
        options.error(f"no such arms: {sorted(unknown)}")
    results = Results.read(given.out) if given.out else Results([], [])
    known = {row["key"]: row for row in results.rows}
    if older := results.of_other_sources(circumstances(given)):
        print(f"{len(older)} rows of other sources than today's are kept; take them out of the file to run them again")
    for seed in given.seeds:
        for order, (arm, run) in enumerate(runs(task, data, seed, known)):
            key = f"{arm}/{seed}"
            if given.arms and arm not in given.arms:
                continue
            if key in known or time.perf_counter() - begun > given.limit:
                continue
            start = time.process_time()
            row = {"key": key, "arm": arm, "order": order, "seed": seed, **run()}
            known[key] = {**row, "seconds": time.process_time() - start}
            print(f"{key}: {row['accuracy']:.1%} in {known[key]['seconds']:.0f} s", flush=True)
            finish(given, [known[key]], "key", lambda _: "")
    print(show(list(known.values())))


if __name__ == "__main__":
    main()
