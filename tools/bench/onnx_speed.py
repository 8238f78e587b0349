"""Is a grown model as fast as the same architecture written by hand? ONNX files timed in turns by gg.compare.

    python tools/bench/onnx_speed.py --models mlp --out docs/speed/onnx_speed.json

Each reference model is widened in every group until its tensors have the shapes of the same model built twice as wide;
both are exported, and timed in pairs in one process with onnxruntime. How tensors happen to lie in memory differs from
process to process, and so does the ratio: it is taken in several processes, the files in the other order in every
second one. The table has the median over the processes and their extremes; of 6, these hold the true median between
them with a probability of 97 %. Beside it stands the model written by hand with itself.
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from graphgrow.models import MODELS, mlp, resnet, vit
from tools.bench.results import Rows, finish, parser, seconds, table


@dataclasses.dataclass(frozen=True)
class Pair:
    """A model to grow, and the model that it is to be as fast as."""

    small: Callable[[], nn.Module]
    wide: Callable[[], nn.Module]


PAIRS = {
    "mlp": Pair(lambda: mlp.mlp(width=256), lambda: mlp.mlp(width=512)),
    "resnet": Pair(lambda: resnet.resnet(width=16), lambda: resnet.resnet(width=32)),
    "vit": Pair(lambda: vit.vit(width=32, heads=4), lambda: vit.vit(width=64, heads=8)),
}


def doubled(model: nn.Module, example: tuple[torch.Tensor, ...], seed: int) -> gg.Graph:
    """A model with every group that can grow twice as wide; the width of attention heads stays what it is."""
    graph = gg.trace(model.eval(), example)
    free = [group for group in graph.groups if group.frozen is None and not group.name.endswith("_width")]
    return gg.apply(graph, [f"widen({group.name}, extra={group.size})" for group in free], seed=seed)


def shapes(module: nn.Module) -> Counter[tuple[int, ...]]:
    """How many parameters there are of each shape."""
    return Counter(tuple(parameter.shape) for parameter in module.parameters())


def operators(path: Path) -> dict[str, int]:
    """How many nodes of each kind a file holds."""
    return dict(Counter(node.op_type for node in onnx.load(str(path)).graph.node))


def measure(name: str, batch_size: int, rounds: int, repeats: int, seed: int, folder: Path) -> dict[str, Any]:
    """The row of one model at one batch size."""
    torch.manual_seed(seed)
    example = MODELS[name].example()
    grown, wide = doubled(PAIRS[name].small(), example, seed), PAIRS[name].wide().eval()
    if shapes(grown.module) != shapes(wide):
        differing = shapes(grown.module) - shapes(wide), shapes(wide) - shapes(grown.module)
        raise SystemExit(f"{name}: the grown model is not of the shapes written by hand: {differing}")
    files = {label: folder / f"{name}-{label}.onnx" for label in ("grown", "wide", "again")}
    gg.export_onnx(grown, files["grown"])
    gg.export_onnx(gg.trace(wide, example), files["wide"])
    shutil.copy(files["wide"], files["again"])

    def rounds_of(label: str) -> list[dict[str, Any]]:
        return [compared(files[label], files["wide"], number, batch_size, repeats) for number in range(rounds)]

    return {
        "subject": f"{name}, batch {batch_size}",
        "parameters": grown.parameter_count,
        "same_operators": operators(files["grown"]) == operators(files["wide"]),
        "rounds": rounds_of("grown"),
        "with_itself": rounds_of("again"),
    }


def compared(first: Path, second: Path, number: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """The comparison of one process, in the other order where its number is odd; `ratio` is of the first file."""
    swapped = bool(number % 2)
    paths = (second, first) if swapped else (first, second)
    found = gg.compare(*paths, batch_size, seed=number, repeats=repeats, warm_up=max(10, repeats // 10))
    return {"ratio": 1 / found.ratio if swapped else found.ratio, "swapped": swapped, "record": found.to_json()}


def show(rows: Rows) -> str:
    """The ratios with their intervals."""
    head = ["model", "parameters", "same operators", "by hand", "ratio", "least and most"]
    head += ["by hand with itself", "least and most"]
    return table(head, list(map(_cells, rows)))


def _cells(row: dict[str, Any]) -> list[str]:
    by_hand = [one["record"]["median_a_ms" if one["swapped"] else "median_b_ms"] for one in row["rounds"]]
    cells = [row["subject"], f"{row['parameters']:,}", "yes" if row["same_operators"] else "no"]
    cells.append(seconds(statistics.median(by_hand) / 1e3))
    for rounds in (row["rounds"], row["with_itself"]):
        ratios = [one["ratio"] for one in rounds]
        cells += [f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f} to {max(ratios):.3f}"]
    return cells


def main() -> None:
    """Read the command line, run, write."""
    options = parser(__doc__, ("graphgrow/bench",))
    options.add_argument("--models", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    options.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8])
    options.add_argument("--rounds", type=int, default=6, help="processes for each comparison")
    options.add_argument("--repeats", type=int, default=100, help="pairs of runs in each process")
    parsed = options.parse_args()
    torch.set_num_threads(parsed.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(name, size, parsed.rounds, parsed.repeats, parsed.seed, Path(folder))
            for name in parsed.models
            for size in parsed.batch_sizes
        ]
    finish(parsed, rows, "subject", show)


if __name__ == "__main__":
    main()
