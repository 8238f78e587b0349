"""How long it takes to capture each torchvision classification model, and to analyse its axes.

    python tools/bench/analysis.py --out docs/speed/analysis.json
    python tools/bench/analysis.py resnet50 vit_b_16

Models are built on the meta device; those that read numbers off tensors while they are built (RegNet) are built on the
CPU and taken to it. There capture runs no forward pass beside the two traces. Analysis is what `graph.analysis` does
when it is first asked for: run each node on the meta device, then each node's rule. A model that cannot be captured
is a row with its reason.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from graphgrow.store.names import import_torchvision
from tools.bench.measuring import Seconds, spread_of, timed
from tools.bench.results import Rows, finish, parser, seconds, table

SIZES = {"inception_v3": 299}


def build(name: str, models: Any) -> tuple[nn.Module, str]:
    """A model on the meta device, and where it was built."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # on how two of them will start in future
        try:
            with torch.device("meta"):
                return models.get_model(name, weights=None), "meta"
        except NotImplementedError:  # what torch raises where a number is read off a tensor without data
            return models.get_model(name, weights=None).to("meta"), "cpu"


def measure(name: str, models: Any, repeats: int) -> dict[str, Any]:
    """The row of one model."""
    model, built = build(name, models)
    size = SIZES.get(name, 224)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    row: dict[str, Any] = {"model": name, "parameters": parameters, "built_on": built}
    example = torch.empty(2, 3, size, size, device="meta")
    try:
        graph, capture = timed(lambda: gg.trace(model, example))
    except gg.GraphGrowError as error:
        return {**row, "failure": f"{type(error).__name__}: {error}"}
    runs: list[Seconds] = []
    for _ in range(1 + repeats):
        again = dataclasses.replace(graph)  # without what was found for the one before
        runs.append(timed(lambda: again.analysis)[1])  # noqa: B023  # called at once
    _, groups = timed(lambda: again.groups)
    warm = spread_of(runs[1:])
    return {
        **row,
        "nodes": len(graph.module.graph.nodes),
        "groups": len(again.groups),
        "capture": capture.wall,
        "capture_cpu": capture.cpu,
        "first": runs[0].wall,
        "warm": dataclasses.asdict(warm),
        "groups_seconds": groups.wall,
    }


def show(rows: Rows) -> str:
    """The rows as a table."""
    head = ["model", "nodes", "capture", "analysis, first", "warm, median", "IQR", "warm, least CPU time", "groups"]
    lines = []
    for row in rows:
        if "failure" not in row:
            warm = row["warm"]
            times = (row["capture"], row["first"], warm["median"], warm["iqr"], warm["cpu"], row["groups_seconds"])
            lines.append([row["model"], str(row["nodes"]), *map(seconds, times)])
    failures = [f"- {row['model']} was not captured: {row['failure']}" for row in rows if "failure" in row]
    return "\n".join([*([table(head, lines)] if lines else []), *(["", *failures] if failures else [])])


def main() -> None:
    """Read the command line, run, write."""
    options = parser(__doc__)
    options.add_argument(
        "models", nargs="*", help="names of torchvision; all classification models where none is named"
    )
    options.add_argument("--repeats", type=int, default=3, help="warm analyses of each model")
    parsed = options.parse_args()
    torch.set_num_threads(parsed.threads)
    models = import_torchvision().models
    timed(lambda: gg.trace(nn.Linear(2, 2), torch.empty(2, 2)).groups)  # load the rules
    rows: Rows = []
    for name in parsed.models or models.list_models(module=models):
        rows.append(measure(name, models, parsed.repeats))
        print(show(rows[-1:]).splitlines()[-1], flush=True)
        gc.collect()
    finish(parsed, rows, "model", show)


if __name__ == "__main__":
    main()
