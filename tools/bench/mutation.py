"""One mutation of torchvision's ResNet-18: apply it, analyse the child, find its groups.

    python tools/bench/mutation.py --out docs/speed/mutation.json

The parent is analysed already, as it is after the first mutation was chosen. Parts of the whole are taken by a watch
on the functions that do them, in runs of their own; "other" is what no watch stands on.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from tools.bench.measuring import Seconds, Stopwatch, spread_of, timed
from tools.bench.results import Rows, finish, parser, seconds, table

MODEL = "torchvision:resnet18"
MUTATIONS = (
    "widen(layer1.0.conv1, extra=32)",
    "widen(layer4.0.conv1, extra=256)",
    "widen(conv1, extra=32)",
    "split(layer1.0.conv1)",
)
APPLY = {
    "search for NaN": ("graphgrow.rewrite.apply:_refuse_nan",),
    "copy of the graph": ("graphgrow.rewrite.apply:Editor.__init__",),
    "plan": ("graphgrow.passes.widen:plan_growth", "graphgrow.passes.split:plan_growth"),
    "tensors": ("graphgrow.rewrite.grow:_grow_tensors",),
    "shapes of the child": ("graphgrow.rewrite.grow:resize",),
    "code of the child": ("graphgrow.rewrite.apply:Editor.finish",),
}
PARTS = {
    **APPLY,
    "analysis: example values": ("graphgrow.network.network:propagate",),
    "analysis: rules": ("graphgrow.network.network:analyse",),
    "groups": ("graphgrow.network.network:Groups.of",),
}


def measure(graph: gg.Graph, text: str, repeats: int, seed: int) -> dict[str, Any]:
    """The row of one mutation."""
    steps: dict[str, list[Seconds]] = {"apply": [], "analysis": [], "groups": [], "whole": []}
    for _ in range(repeats):
        child, applied = timed(lambda: gg.apply(graph, text, seed=seed))
        _, analysed = timed(lambda: child.analysis)  # noqa: B023  # called at once
        _, grouped = timed(lambda: child.groups)  # noqa: B023
        taken = (applied, analysed, grouped)
        whole = Seconds(sum(one.wall for one in taken), sum(one.cpu for one in taken))
        for name, one in zip(steps, (*taken, whole), strict=True):
            steps[name].append(one)
    spreads = {name: dataclasses.asdict(spread_of(runs)) for name, runs in steps.items()}
    return {"mutation": text, **spreads, "breakdown": breakdown(graph, text, repeats, seed)}


def breakdown(graph: gg.Graph, text: str, repeats: int, seed: int) -> dict[str, float]:
    """The median processor time of each part."""
    found: dict[str, list[float]] = {part: [] for part in (*PARTS, "other")}
    for _ in range(repeats):
        watch = Stopwatch()
        with watch.watching(PARTS):
            _, taken = timed(lambda: gg.apply(graph, text, seed=seed).groups)
        for part in PARTS:
            found[part].append(watch.seconds.get(part, 0.0))
        found["other"].append(taken.cpu - sum(watch.seconds.values()))
    return {part: statistics.median(times) for part, times in found.items()}


def show(rows: Rows) -> str:
    """The whole with its spread, and the parts."""
    head = ["mutation", "whole, median", "IQR", "apply", "analysis", "groups", "whole, least CPU time"]
    lines = [
        [f"`{row['mutation']}`", seconds(row["whole"]["median"]), seconds(row["whole"]["iqr"])]
        + [seconds(row[name]["median"]) for name in ("apply", "analysis", "groups")]
        + [seconds(row["whole"]["cpu"])]
        for row in rows
    ]
    parts = [[part, *(seconds(row["breakdown"][part]) for row in rows)] for part in (*PARTS, "other")]
    names = [f"`{row['mutation']}`" for row in rows]
    return f"{table(head, lines)}\n\n{table(['part, median CPU time', *names], parts)}"


def main() -> None:
    """Read the command line, run, write."""
    options = parser(__doc__)
    options.add_argument("mutations", nargs="*", default=list(MUTATIONS))
    options.add_argument("--repeats", type=int, default=30)
    parsed = options.parse_args()
    torch.set_num_threads(parsed.threads)
    torch.manual_seed(parsed.seed)
    graph = gg.trace(MODEL)
    for text in parsed.mutations:  # load rules and passes, and warm up
        print(gg.apply(graph, text).groups.find("conv1"))
    rows = [measure(graph, text, parsed.repeats, parsed.seed) for text in parsed.mutations]
    finish(parsed, rows, "mutation", show)


if __name__ == "__main__":
    main()
