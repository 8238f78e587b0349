"""Apply and verify every listed mutation on named models; write the outcome as a table and as JSON.

    python tools/coverage.py graphgrow:resnet torchvision:resnet18 --out docs/coverage.md

A model that fails is a row with its reason, never left out. Rows of other models that the JSON beside the table holds
are kept, so that models can be run one by one. `--sites N` takes N mutations of each pass by chance
(seeded); without it, all of them. After the single mutations a chain of 10 is drawn, verified, and replayed.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import graphgrow as gg
from graphgrow.rewrite.apply import replay as replay_entries
from graphgrow.store.names import build

CHAIN = 10


@dataclass
class Row:
    """What was seen on one model."""

    model: str
    way: str = ""
    nodes: int = 0
    parameters: int = 0
    growable: float = 0.0
    modes: str = ""
    tried: dict[str, int] = field(default_factory=dict)
    preserved: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    worst: float = 0.0
    chain: str = ""
    unknown: dict[str, int] = field(default_factory=dict)
    frozen: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    options: str = ""
    failure: str = ""


def cover(name: str, options: argparse.Namespace) -> Row:
    """Try the mutations of one model."""
    row, start = Row(name), time.perf_counter()
    try:
        torch.manual_seed(options.seed)
        model, example = build(name)
        args = (torch.randn(options.input),) if options.input else example
        if args is None:
            raise gg.CaptureError(f"{name} has no example inputs of its own; give --input")
        if options.batch:
            args = tuple(arg[: options.batch] for arg in args)
        graph = gg.trace(model.to(options.device), tuple(arg.to(options.device) for arg in args))
        _describe(row, graph)
        _singles(row, graph, options)
        row.chain = _chain(graph, options)
    except gg.GraphGrowError as error:
        row.failure = f"{type(error).__name__}: {error}"
    row.seconds = time.perf_counter() - start
    row.options = _options(options)
    return row


def _options(options: argparse.Namespace) -> str:
    """The options that a row was made with."""
    parts = [f"--input {','.join(map(str, options.input))}"] if options.input else []
    parts += [f"--batch {options.batch}"] if options.batch else []
    parts += [f"--sites {options.sites}"] if options.sites else []
    parts += [f'--batch-sizes "{",".join(map(str, options.batch_sizes))}"'] if options.batch_sizes != (1, 3) else []
    return " ".join([*parts, f"--seed {options.seed}"])


def _describe(row: Row, graph: gg.Graph) -> None:
    row.way, row.nodes, row.parameters = graph.way, len(graph.module.graph.nodes), graph.parameter_count
    row.modes = " and ".join(sorted(graph.modes))
    row.unknown = dict(Counter(graph.analysis.unknown.values()))
    row.frozen = dict(Counter(group.frozen.text for group in graph.groups if group.frozen))
    free = {group.space for group in graph.groups if group.frozen is None}
    values = set(graph.analysis.parameters.values())
    growing = sum(_numel(v) for v in values if not v.buffer and any(v.axes_with(space) for space in free))
    row.growable = growing / max(graph.parameter_count, 1)


def _numel(value: Any) -> int:
    size = 1
    for term in value.axes:
        size *= term.size
    return size


def _singles(row: Row, graph: gg.Graph, options: argparse.Namespace) -> None:
    chance = random.Random(options.seed)
    for pass_name in gg.pass_names():
        mutations = list(graph.mutations(pass_name))
        if options.sites and len(mutations) > options.sites:
            mutations = chance.sample(mutations, options.sites)
        row.tried[pass_name], row.preserved[pass_name] = len(mutations), 0
        for mutation in mutations:
            verdict = gg.verify(graph, gg.apply(graph, mutation, seed=options.seed), batch_sizes=options.batch_sizes)
            if verdict.preserved:
                row.preserved[pass_name] += 1
                row.worst = max(row.worst, *(c.max_error / c.bound for c in verdict.checks if c.bound > 0))
            else:
                row.wrong.append(f"{mutation}: {verdict.reason}")
            print(f"  {row.model} {mutation}: {'ok' if verdict.preserved else verdict}", flush=True)


def _chain(graph: gg.Graph, options: argparse.Namespace) -> str:
    """A chain of mutations, verified as a whole and replayed to the bit."""
    chance, current = random.Random(options.seed), graph
    for _ in range(CHAIN):
        mutations = [m for m in current.mutations() if "split" not in str(m) or _small(current, graph)]
        if not mutations:
            return "no mutation applies"
        current = gg.apply(current, chance.choice(mutations), seed=chance.randrange(2**31))
    verdict = gg.verify(graph, current, batch_sizes=options.batch_sizes)
    again = replay_entries(graph, current.ledger)
    mine, other = current.module.state_dict(), again.module.state_dict()
    same = mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)
    outcome = "preserved" if verdict.preserved else f"{verdict.reason or 'undetermined'}"
    growth = current.parameter_count / graph.parameter_count
    return f"{outcome}, replay {'to the bit' if same else 'DIFFERS'}, {growth:.1f}x"


def _small(current: gg.Graph, graph: gg.Graph) -> bool:
    """Whole splits double a group; a chain of them alone would outgrow the memory."""
    return current.parameter_count < 2 * graph.parameter_count


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    passes = list(gg.pass_names())
    head = ["model", "parameters", "nodes", "in growable groups", *(f"{name} preserved" for name in passes)]
    head += ["worst error / bound", f"chain of {CHAIN}", "seconds", "options"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        if row.failure:
            lines.append(f"| {row.model} | {row.failure} |" + " |" * (len(head) - 2))
            continue
        cells = [row.model, f"{row.parameters:,}", str(row.nodes), f"{row.growable:.1%}"]
        cells += [f"{row.preserved.get(name, 0)} of {row.tried.get(name, 0)}" for name in passes]
        cells += [f"{row.worst:.2f}", row.chain, f"{row.seconds:.0f}", f"`{row.options}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sites", type=int, default=0, help="mutations of each pass to try (0: all)")
    parser.add_argument("--input", type=lambda text: tuple(map(int, text.split(","))), help="shape of the example")
    parser.add_argument("--batch", type=int, default=0, help="batch size of the example (0: its own)")
    parser.add_argument(
        "--batch-sizes", type=lambda text: tuple(map(int, text.split(","))) if text else (), default=(1, 3)
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file; a JSON file goes beside it")
    options = parser.parse_args()
    rows = [cover(name, options) for name in options.models]
    print(table(rows))
    if options.out:
        write(rows, options.out)


def write(rows: list[Row], path: Path) -> None:
    """Write the table and the JSON beside it, with the rows of other models that are there already."""
    data = path.with_suffix(".json")
    kept = [Row(**row) for row in json.loads(data.read_text(encoding="utf-8"))] if data.exists() else []
    merged = {row.model: row for row in [*kept, *rows]}
    ordered = [merged[name] for name in sorted(merged)]
    words = f"""# Coverage

Every listed mutation (or a sample, where the options say `--sites`) was applied to each model by itself and verified
in float64, in eval and in train mode; then a chain of mutations was drawn, verified as a whole and replayed. Written
by `python tools/coverage.py MODEL ... OPTIONS --out docs/coverage.md` with torch {torch.__version__}; what was compared
is in [verification.md](verification.md).

"""
    frozen = "".join(_refusals(row) for row in ordered)
    path.write_text(f"{words}{table(ordered)}\n\n## What cannot grow, and why\n\n{frozen}", encoding="utf-8")
    data.write_text(json.dumps([asdict(row) for row in ordered], indent=1) + "\n", encoding="utf-8")


def _refusals(row: Row) -> str:
    reasons = [f"{count} groups: {reason}" for reason, count in sorted(row.frozen.items(), key=lambda item: -item[1])]
    reasons += [f"{count} nodes: {reason}" for reason, count in row.unknown.items()]
    wrong = [f"**not preserved**: {text}" for text in row.wrong]
    return f"- `{row.model}`: {'; '.join([*wrong, *reasons]) or 'nothing'}\n"


if __name__ == "__main__":
    main()
