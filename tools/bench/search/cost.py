"""What a candidate costs beside its training, what children weigh, and how the crews of workers scale.

python tools/bench/search/cost.py --out docs/search/cost.json
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import graphgrow as gg
from graphgrow.records import CandidateRecord
from graphgrow.search.candidates import candidate_folder
from graphgrow.search.engine import Crew, run
from graphgrow.search.evaluate import Tell, base_model, evaluate
from graphgrow.search.job import Job, stream
from graphgrow.search.pool import Pool
from graphgrow.search.ray_tasks import RayTasks
from graphgrow.search.recipe import Evolution, Limits, Variation, read_recipe
from graphgrow.search.variation import mutate
from graphgrow.store.folder import load
from tools.bench.results import Rows, finish, parser, table
from tools.bench.search import DEPENDS

TARGET = "tools.bench.search.cost:clocked"


def overhead(folder: Path, children: int) -> Rows:
    """Processor seconds of each part of an evaluation at the digits recipe's own budget, and of exports.

    An evaluation has one thread, so that these are the seconds of a machine which does nothing else. Where latency or
    memory is an objective, each candidate is exported for the one batch size that is timed; else the front alone, for
    all sizes.
    """
    recipe = read_recipe(Evolution, "evolve", "digits")
    with patch("graphgrow.search.evaluate.time", SimpleNamespace(perf_counter=time.process_time)):
        evaluate(Job(str(folder), recipe, 0).to_json())
        evaluate(child(folder, recipe, 1))  # what is done once in a process is not counted
        records = [CandidateRecord.from_json(evaluate(child(folder, recipe, 2 + n))) for n in range(children)]
    done = [record for record in records if record.status == "done"]
    graphs = [load(candidate_folder(folder, record.number, 0), base_model(recipe.task)) for record in done]
    vary, verify, train = ([record.seconds[name] for record in done] for name in ("vary", "verify", "train"))
    gg.export_onnx(graphs[0], folder / "one.onnx")
    gc.collect()
    gc.freeze()  # as a worker does
    timed, whole = ([_exported(graph, folder / "one.onnx", size) for graph in graphs] for size in (1, None))
    both = [a + b for a, b in zip(vary, verify, strict=True)]
    return [
        row("vary, seconds", vary),
        row("verify, seconds", verify),
        row("train, seconds", train),
        row("export for one batch size, seconds", timed),
        row("export for all batch sizes, seconds", whole),
        row("vary + verify, share of the training", [a / b for a, b in zip(both, train, strict=True)]),
        row(
            "vary + verify + export for one batch size, share of the training",
            [(a + b) / c for a, b, c in zip(both, timed, train, strict=True)],
        ),
        row("export for all batch sizes, share of the training", [a / b for a, b in zip(whole, train, strict=True)]),
    ]


def _exported(graph: gg.Graph, file: Path, size: int | None) -> float:
    """Processor seconds of an export."""
    start = time.process_time()
    gg.export_onnx(graph, file, static_batch=size)
    return time.process_time() - start


def child(folder: Path, recipe: Evolution, number: int) -> dict[str, Any]:
    """The job of a child of the base."""
    return Job(str(folder), recipe, number, 0, 1, (0,), (0,)).to_json()


def row(what: str, values: Sequence[float]) -> dict[str, Any]:
    """The median of several measurements, with the lowest and the highest."""
    return {"what": what, "value": statistics.median(values), "low": min(values), "high": max(values)}


def memory(children: int) -> Rows:
    """Bytes of the distinct tensors of ResNet-18 and of random children of it that were not trained yet."""
    parent = gg.trace("torchvision:resnet18", torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    variation = Variation(most=1, rates={"split": 0.0, "widen": 1.0})
    family = [parent] + [mutate(parent, stream(0, number), variation, Limits()) for number in range(children)]
    parameters: dict[int, int] = {}
    buffers = 0
    for graph in family:
        parameters |= {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in graph.module.parameters()}
        buffers += sum(b.untyped_storage().nbytes() for b in graph.module.buffers())
    alone = sum(p.untyped_storage().nbytes() for p in parent.module.parameters())
    copied = sum(p.untyped_storage().nbytes() for graph in family for p in graph.module.parameters())
    return [
        {"what": "ResNet-18, parameters, MB", "value": alone / 1e6},
        {"what": f"ResNet-18 and {children} children, MB", "value": (sum(parameters.values()) + buffers) / 1e6},
        {"what": "the same, if every child had copies, MB", "value": (copied + buffers) / 1e6},
    ]


def clocked(job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """An evaluation, and what it took of the clock and of the processor; the workers call it."""
    wall, cpu = time.perf_counter(), time.process_time()
    evaluate(job, tell)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


@dataclass(frozen=True)
class Round:
    """Some evaluations by some workers.

    Attributes:
        wall: seconds of all.
        busy: the share of them in which the workers evaluated.
        cpu: seconds of the processor for one evaluation.
    """

    wall: float
    busy: float
    cpu: float


def worked(crew: Crew, jobs: list[dict[str, Any]]) -> Round:
    """The same evaluations by a crew whose workers are warm.

    Raises:
        RuntimeError: if one fails.
    """
    start = time.perf_counter()
    outcomes = list(run(crew, jobs, 0, 600.0))
    wall = time.perf_counter() - start
    found = [outcome.result for outcome in outcomes if outcome.result is not None]
    if len(found) < len(jobs):
        raise RuntimeError(f"an evaluation failed: {[outcome.reason for outcome in outcomes if outcome.reason]}")
    busy = sum(one["wall"] for one in found) / (crew.size * wall)
    return Round(wall, busy, statistics.median(one["cpu"] for one in found))


def scaling(folder: Path, engine: str, jobs: int, rounds: int) -> Rows:
    """The same independent evaluations by one worker and by two, in turns.

    On a machine that others use, the speed-up is that of the processor time which they leave. What the engine itself
    takes away shows all the same: in the time in which workers wait for work. What an evaluation costs the processor
    beside another one says how much they are in each other's way, and in that of whatever else runs.
    """
    recipe = read_recipe(Evolution, "evolve", "digits")
    evaluate(Job(str(folder), recipe, 0).to_json())
    work = [child(folder, recipe, 1 + number) for number in range(jobs)]
    measured: dict[int, list[Round]] = {1: [], 2: []}
    for _ in range(rounds):
        for size in (1, 2):
            crew: Crew = Pool(size, TARGET) if engine == "pool" else RayTasks(size, TARGET)
            try:
                list(run(crew, work[:1] * size, 0, 600.0))
                measured[size].append(worked(crew, work))
            finally:
                crew.close()
    pairs = list(zip(measured[1], measured[2], strict=True))
    return [
        row(f"{engine}: speed-up from 1 to 2 workers", [one.wall / two.wall for one, two in pairs]),
        row(f"{engine}: share of the time in which 1 worker evaluates", [one.busy for one in measured[1]]),
        row(f"{engine}: share of the time in which 2 workers evaluate", [two.busy for two in measured[2]]),
        row(f"{engine}: processor time of an evaluation beside another one", [b.cpu / a.cpu for a, b in pairs]),
    ]


def show(rows: Rows) -> str:
    """One line each."""
    cells = [[row["what"], f"{row['value']:.3g}", _range(row)] for row in rows]
    return table(["what", "median", "range"], cells)


def _range(row: Mapping[str, Any]) -> str:
    return f"{row['low']:.3g} to {row['high']:.3g}" if "low" in row else ""


PARTS = ("overhead", "memory", "pool", "ray")


def main() -> None:
    """Measure the parts that are asked for."""
    options = parser(__doc__, DEPENDS)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--children", type=int, default=50, help="of ResNet-18")
    options.add_argument("--jobs", type=int, default=8, help="evaluations that are timed")
    options.add_argument("--rounds", type=int, default=3, help="of one worker and two in turns")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    measures: Mapping[str, Callable[[Path], Rows]] = {
        "overhead": lambda place: overhead(place, given.jobs),
        "memory": lambda place: memory(given.children),
        "pool": lambda place: scaling(place, "pool", given.jobs, given.rounds),
        "ray": lambda place: scaling(place, "ray", given.jobs, given.rounds),
    }
    for part in given.parts:
        print(f"{part}: the load is {os.getloadavg()[0]:.1f}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            finish(given, measures[part](Path(folder)), "what", show)


if __name__ == "__main__":
    main()
