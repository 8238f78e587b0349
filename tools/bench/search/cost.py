"""What a candidate costs beside its training, what children weigh, and how the pool scales.

python tools/bench/search/cost.py --out docs/search/cost.json
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import graphgrow as gg
from graphgrow.records import CandidateRecord
from graphgrow.search.candidates import candidate_folder
from graphgrow.search.engine import run
from graphgrow.search.evaluate import base_model, evaluate
from graphgrow.search.job import Job, stream
from graphgrow.search.pool import Pool
from graphgrow.search.recipe import Evolution, Limits, Variation, read_recipe
from graphgrow.search.variation import mutate
from graphgrow.store.folder import load
from tools.bench.results import Rows, finish, parser, table


def overhead(folder: Path, children: int) -> list[dict[str, Any]]:
    """Seconds of each part of an evaluation at the digits recipe's own budget, and of an export.

    Only the front is exported, at the end, unless latency or memory is an objective.
    """
    recipe = read_recipe(Evolution, "evolve", "digits")
    evaluate(Job(str(folder), recipe, 0).to_json())
    records = [
        CandidateRecord.from_json(evaluate(Job(str(folder), recipe, number, 0, 1, (0,), (0,)).to_json()))
        for number in range(1, children + 1)
    ]
    done = [record for record in records if record.status == "done"]
    parts = {name: statistics.median(r.seconds[name] for r in done) for name in ("inherit", "vary", "verify", "train")}
    exports = []
    for record in done:
        graph = load(candidate_folder(folder, record.number, 0), base_model(recipe.task))
        start = time.perf_counter()
        gg.export_onnx(graph, folder / "one.onnx")
        exports.append(time.perf_counter() - start)
    parts["export"] = statistics.median(exports)
    always = parts["vary"] + parts["verify"]
    return [
        *({"what": f"{name}, seconds", "value": value} for name, value in parts.items()),
        {"what": "vary + verify, share of the training", "value": always / parts["train"]},
        {"what": "the same with an export", "value": (always + parts["export"]) / parts["train"]},
    ]


def memory(children: int) -> list[dict[str, Any]]:
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


def scaling(folder: Path, jobs: int) -> list[dict[str, Any]]:
    """Wall seconds of independent evaluations with one worker and with two; the workers are warm.

    On a machine that others use the speed-up says little. Whether the pool keeps its workers busy shows all the same:
    in the share of the time in which they evaluate, and do not wait for work.
    """
    recipe = read_recipe(Evolution, "evolve", "digits")
    evaluate(Job(str(folder), recipe, 0).to_json())
    walls, shares = {}, {}
    for size in (1, 2):
        pool = Pool(size)
        first = 1000 * size
        warm = [Job(str(folder), recipe, first + n, 0, 1, (0,), (0,)).to_json() for n in range(size)]
        work = [Job(str(folder), recipe, first + 100 + n, 0, 1, (0,), (0,)).to_json() for n in range(jobs)]
        try:
            list(run(pool, warm, 0, 600.0))
            start = time.perf_counter()
            outcomes = list(run(pool, work, 0, 600.0))
            walls[size] = time.perf_counter() - start
            records = [CandidateRecord.from_json(outcome.result) for outcome in outcomes if outcome.result is not None]
            shares[size] = sum(sum(record.seconds.values()) for record in records) / (size * walls[size])
        finally:
            pool.close()
    return [
        {"what": f"{jobs} evaluations with 1 worker, seconds", "value": walls[1]},
        {"what": f"{jobs} evaluations with 2 workers, seconds", "value": walls[2]},
        {"what": "speed-up from 1 to 2 workers", "value": walls[1] / walls[2]},
        {"what": "share of the time in which 1 worker evaluates", "value": shares[1]},
        {"what": "share of the time in which 2 workers evaluate", "value": shares[2]},
    ]


def show(rows: Rows) -> str:
    """One line each."""
    return table(["what", "value"], [[row["what"], f"{row['value']:.3g}"] for row in rows])


def main() -> None:
    """Measure the parts that are asked for."""
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", choices=("overhead", "memory", "scaling"), default=["overhead"])
    options.add_argument("--children", type=int, default=50, help="of ResNet-18")
    options.add_argument("--jobs", type=int, default=6, help="evaluations that are timed")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    for part in given.parts:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            if part == "overhead":
                rows = overhead(place, given.jobs)
            else:
                rows = memory(given.children) if part == "memory" else scaling(place, given.jobs)
            finish(given, rows, "what", show)


if __name__ == "__main__":
    main()
