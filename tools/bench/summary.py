"""The learning benchmark in one table: a line for each task, from what `tools/bench/learning/run.py` writes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from tools.bench.results import Rows, table

TASKS = {
    "digits": "digits",
    "patterns": "generated images",
    "digits-long": "digits, at its plateau",
    "patterns-long": "generated images, at its plateau",
    "text": "text",
    "text-long": "text, at its plateau",
    "text-deep": "a deep net, on text",
}
HALF = ", 1/2 of the FLOPs"
FROM_SCRATCH = ("small", "big", "from scratch")
ENDS_AS_BIG = ("progressive", "stack")  # where a task has no row of the last net, it is the big one itself


def show(files: Mapping[str, Rows]) -> str:
    """Test accuracies in %, mean and standard deviation over the seeds; the best arm is that of the highest mean.

    Args:
        files: the rows of each task, by the name of its file.
    """
    lines = []
    for name, said in TASKS.items():
        arms: dict[str, list[float]] = {}
        for row in files[name]:
            arms.setdefault(row["arm"], []).append(100 * row["accuracy"])
        half = {arm.removesuffix(HALF): found for arm, found in arms.items() if arm.endswith(HALF)}
        scratch = {arm: found for arm, found in half.items() if _from_scratch(arm)}
        grown = {arm: found for arm, found in half.items() if arm not in scratch}
        best, other = _best(grown), _best(scratch)
        ahead = statistics.mean(grown[best]) - statistics.mean(scratch[other])
        own = scratch.get(f"{best}: its final net from scratch")
        control = _spread(own) if own else f"{_spread(scratch['big'])} (big)" if best in ENDS_AS_BIG else ""
        cells = [f"{_spread(scratch[other])} ({_short(other)})", f"{_spread(grown[best])} ({best})", f"{ahead:+.1f}"]
        lines.append([said, _spread(arms["big"]), *cells, control])
    titles = ["task", "big, all FLOPs", "best from scratch", "best grown", "difference", "grown net, from scratch"]
    return table(titles, lines)


def _best(arms: Mapping[str, list[float]]) -> str:
    return max(arms, key=lambda arm: statistics.mean(arms[arm]))


def _from_scratch(arm: str) -> bool:
    return arm.startswith(FROM_SCRATCH[:2]) or arm.endswith(FROM_SCRATCH[2])


def _short(arm: str) -> str:
    return (
        arm.replace("big, its learning rate rising for a fifth", "big, longer rise")
        .replace(": its final net from scratch", "'s final net")
        .replace(": the net that it had half way from scratch", "'s net half way")
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
