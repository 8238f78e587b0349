"""Widening a stack of a billion parameters: time against copying the changed tensors, and peak memory.

    python tools/bench/large.py --out docs/speed/large.json
    python tools/bench/large.py --layers 4

The stack (tools/bench/llama.py, bfloat16, CPU) is traced and grown in a child process whose memory is limited. The
yardstick is `clone()` of all parameters that the mutation replaced, at their new sizes, made in turns with the mutation
and by as many threads. Peak memory is the largest resident memory of the process: the parent model, the
grown one, what `apply` needs on its way, and the copies of the yardstick.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from tools.bench.llama import Shape, llama
from tools.bench.measuring import Seconds, Stopwatch, spread_of, timed
from tools.bench.mutation import APPLY
from tools.bench.results import Rows, finish, parser, seconds, table
from tools.sweep.child import limit_memory, peak_gib

LIMIT_GIB = 24.0
COPIES = 3  # of the yardstick for each mutation: the first may wait for memory that the others find at hand
MUTATIONS = ("widen(blocks.0.mlp.gate, extra=1024)", "widen(embed, extra=256)")


def measure(options: argparse.Namespace) -> Rows:
    """The rows of the child process: one for the stack itself, one for each mutation."""
    model = llama(Shape(layers=options.layers), options.seed)
    tokens = torch.randint(Shape.vocabulary, (1, Shape.length), generator=torch.Generator().manual_seed(options.seed))
    built = peak_gib()
    graph, traced = timed(lambda: gg.trace(model, tokens))
    _, analysed = timed(lambda: graph.analysis)
    _, grouped = timed(lambda: graph.groups)
    stack = {
        "subject": "stack",
        "layers": options.layers,
        "parameters": graph.parameter_count,
        "bytes": _bytes(model.parameters()),
        "nodes": len(graph.module.graph.nodes),
        "trace": dataclasses.asdict(traced),
        "analysis": dataclasses.asdict(analysed),
        "groups": dataclasses.asdict(grouped),
        "peak_gib_built": built,
        "peak_gib_traced": peak_gib(),
    }
    return [stack, *(grown(graph, text, options.repeats, options.seed) for text in MUTATIONS)]


def grown(graph: gg.Graph, text: str, repeats: int, seed: int) -> dict[str, Any]:
    """The row of one mutation."""
    applied: list[Seconds] = []
    copied: list[Seconds] = []
    parts: list[dict[str, float]] = []
    for _ in range(repeats):
        watch = Stopwatch()
        with watch.watching(APPLY):
            child, taken = timed(lambda: gg.apply(graph, text, seed=seed))
        applied.append(taken)
        parts.append({part: watch.seconds.get(part, 0.0) for part in APPLY})
        parts[-1]["other"] = taken.cpu - sum(watch.seconds.values())
        copied += [timed(functools.partial(_copy, child))[1] for _ in range(COPIES)]
        entries, size = child.parameter_count - graph.parameter_count, _bytes(child.new_parameters())
        del child  # so that there is only ever one grown model
    best = min(range(repeats), key=lambda run: applied[run].cpu)
    return {
        "subject": text,
        "bytes": size,
        "new_entries": entries,
        "apply": dataclasses.asdict(spread_of(applied)),
        "copy": dataclasses.asdict(spread_of(copied)),
        "breakdown": parts[best],
        "peak_gib": peak_gib(),
    }


def _copy(child: gg.Graph) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in child.new_parameters()]


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def show(rows: Rows) -> str:
    """The stack in words, the mutations as tables."""
    stack = next(row for row in rows if row["subject"] == "stack")
    words = (
        f"{stack['parameters']:,} parameters in {stack['layers']} layers, {stack['bytes'] / 2**30:.2f} GiB in "
        f"bfloat16, {stack['nodes']} nodes; traced in {seconds(stack['trace']['wall'])} (one forward pass among it), "
        f"analysed in {seconds(stack['analysis']['wall'])}, groups in {seconds(stack['groups']['wall'])}; peak memory "
        f"{stack['peak_gib_built']:.2f} GiB built, {stack['peak_gib_traced']:.2f} GiB traced."
    )
    rest = [row for row in rows if row["subject"] != "stack"]
    head = ["mutation", "changed", "new entries", "apply, CPU time", "copy, CPU time", "ratio"]
    head += ["apply, wall", "copy, wall", "peak memory"]
    names = [f"`{row['subject']}`" for row in rest]
    parts = [[part, *(seconds(row["breakdown"][part]) for row in rest)] for part in (*APPLY, "other")]
    return f"{words}\n\n{table(head, list(map(_cells, rest)))}\n\n{table(['part of apply, CPU time', *names], parts)}"


def _cells(row: dict[str, Any]) -> list[str]:
    apply, copy = row["apply"], row["copy"]
    return [
        f"`{row['subject']}`",
        f"{row['bytes'] / 2**30:.2f} GiB",
        f"{row['new_entries'] / 1e6:.1f} M",
        seconds(apply["cpu"]),
        seconds(copy["cpu"]),
        f"{apply['cpu'] / copy['cpu']:.2f}",
        seconds(apply["median"]),
        seconds(copy["median"]),
        f"{row['peak_gib']:.2f} GiB",
    ]


def main() -> None:
    """Read the command line, run in a child process, write."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=Shape.layers)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--limit-gib", type=float, default=LIMIT_GIB, help="of the child's memory")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parsed = options.parse_args()
    torch.set_num_threads(parsed.threads)
    if parsed.child:
        limit_memory(parsed.limit_gib)
        print(json.dumps(measure(parsed)))
        return
    command = [sys.executable, *sys.argv, "--child"]
    child = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env={**os.environ, "OMP_NUM_THREADS": str(parsed.threads)}
    )
    finish(parsed, json.loads(child.stdout.splitlines()[-1]), "subject", show)


if __name__ == "__main__":
    main()
