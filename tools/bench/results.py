"""The JSON files of the benchmarks: what was measured, with which command, seed and versions, on what machine."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tools.sweep.versions import versions_for

Rows = list[dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]


def parser(doc: str | None, depends: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that all benchmarks have.

    Args:
        doc: of the script.
        depends: folders and files of the repository that the results depend on, beside the sources that
            `tools.sweep.versions` counts.
    """
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, help="JSON file; rows that it holds of what is not measured now are kept")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.set_defaults(depends={part: part_digest(part) for part in depends})  # of what is run, whatever follows
    return options


@cache
def _load_at_start() -> float:
    return round(os.getloadavg()[0], 1)


def circumstances(options: argparse.Namespace) -> dict[str, Any]:
    """Command, seed, versions, digests of the parts that the results depend on, and machine."""
    known = {name: value for name, value in vars(options).items() if name not in ("out", "depends")}
    script = Path(sys.argv[0]).resolve()
    root = ROOT
    shown = script.relative_to(root).as_posix() if script.is_relative_to(root) else script.name
    arguments = [argument.replace(f"{root}{os.sep}", "") for argument in sys.argv[1:]]
    return {
        "command": shlex.join(["python", shown, *arguments]),
        "options": {name: value for name, value in known.items() if isinstance(value, (int, float, str, list))},
        "versions": {
            **versions_for("graphgrow:"),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torchvision", "onnx", "onnxruntime")},
        },
        **({"parts": parts} if (parts := vars(options).get("depends")) else {}),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.system(),
            "threads": torch.get_num_threads(),
            "load_at_start": _load_at_start(),
        },
    }


def part_digest(part: str) -> str:
    """12 hexadecimal digits over the Python files and recipes of a folder of the repository, or over one file."""
    whole = ROOT / part
    found = hashlib.sha256()
    for path in [whole] if whole.is_file() else sorted([*whole.rglob("*.py"), *whole.rglob("*.toml")]):
        data = path.read_bytes()
        found.update(f"{path.relative_to(ROOT).as_posix()}:{len(data)}\n".encode())
        found.update(data)
    return found.hexdigest()[:12]


def _processor() -> str:
    """The processor's name, where the system tells."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Results:
    """The rows of one benchmark, each with `run`, the number of the run that it comes from."""

    runs: list[dict[str, Any]]
    rows: Rows

    @classmethod
    def read(cls, path: Path) -> Results:
        """What `write` wrote; nothing where there is no file."""
        if not path.exists():
            return cls([], [])
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(data["runs"], data["rows"])

    def merged(self, about: dict[str, Any], rows: Rows, key: str) -> Results:
        """With the rows of another run, which take the place of rows that have the same value under `key`."""
        runs = self.runs if about in self.runs else [*self.runs, about]
        new = {row[key]: {**row, "run": runs.index(about)} for row in rows}
        every = list(({row[key]: row for row in self.rows} | new).values())
        used = sorted({row["run"] for row in every})
        return Results([runs[i] for i in used], [{**row, "run": used.index(row["run"])} for row in every])

    def of_other_sources(self, about: dict[str, Any]) -> list[str]:
        """The keys of rows that were measured with other sources, or of which it is not known."""

        def sources(run: dict[str, Any]) -> tuple[Any, Any]:
            return run["versions"]["source"], run.get("parts")

        return [row["key"] for row in self.rows if sources(self.runs[row["run"]]) != sources(about)]

    def write(self, path: Path) -> None:
        """Write as JSON, one line for each run and row, so that changes can be read."""
        runs, rows = (",\n".join(json.dumps(item, allow_nan=False) for item in part) for part in (self.runs, self.rows))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"runs": [\n{runs}\n], "rows": [\n{rows}\n]}}\n', encoding="utf-8")


def finish(options: argparse.Namespace, rows: Rows, key: str, show: Callable[[Rows], str]) -> None:
    """Print the rows as a table, and write them where `--out` says."""
    if text := show(rows):
        print(text)
    if options.out:
        Results.read(options.out).merged(circumstances(options), _rounded(rows), key).write(options.out)


def missing(
    options: argparse.Namespace,
    arms: Iterable[str],
    measured: Callable[[str, int, Rows], dict[str, Any]],
    show: Callable[[Rows], str],
) -> None:
    """Measure each arm with each of `options.seeds` that the file does not hold yet, and write every row at once.

    Args:
        options: of the benchmark; with `--out` it goes on where it was.
        arms: by name.
        measured: `(arm, seed, rows so far) -> row`, whose key is `ARM-SEED`.
        show: all rows as text.
    """
    results = Results.read(options.out) if options.out else Results([], [])
    for seed in options.seeds:
        for arm in arms:
            if all(row["key"] != f"{arm}-{seed}" for row in results.rows):
                row = _rounded(measured(arm, seed, results.rows))
                results = results.merged(circumstances(options), [row], "key")
                print(show(results.rows), flush=True)
                if options.out:
                    results.write(options.out)


def _rounded(value: Any) -> Any:
    """Every float with 6 significant digits; more are noise, and hard to read."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first stand to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *padded])} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def seconds(value: float | None) -> str:
    """A time with three significant digits, in seconds or milliseconds."""
    if value is None:
        return ""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
