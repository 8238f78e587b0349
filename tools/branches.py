"""Which branches the tests reach, folder by folder, and which refusals they do not: read from coverage.py's data.

    make coverage
    python -m tools.branches .coverage ...

As a module: beside it lies a coverage.py of the project's own. The files are what `coverage run --branch -m pytest`
wrote; several are taken together. A refusal is a `raise` of an error with words of its own. The exit status is 1 where
one is not reached.
"""

from __future__ import annotations

import argparse
import ast
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import coverage


@dataclass
class Count:
    """How much of a folder is reached.

    Attributes:
        reached: branches that are.
        branches: all of them.
        silent: refusals that are not, as `path:line: source`.
    """

    reached: int
    branches: int
    silent: list[str]


def report(files: list[Path]) -> dict[str, Any]:
    """What coverage.py says of each source, by its path."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        found = coverage.Coverage(data_file=data)
        found.combine([str(file) for file in files], strict=True, keep=True)
        found.save()
        found.json_report(outfile=str(Path(folder) / "report.json"))
        read: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))["files"]
    return read


def refusals(text: str) -> Iterator[int]:
    """The lines of a source that raise an error with words of its own; not those that say what cannot be."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func)
            if name not in ("AssertionError", "NotImplementedError"):
                yield node.lineno


def counted(sources: Mapping[str, Any]) -> dict[str, Count]:
    """The counts by folder."""
    counts: dict[str, Count] = defaultdict(lambda: Count(0, 0, []))
    for path, found in sorted(sources.items()):
        count, text = counts[str(PurePath(path).parent)], Path(path).read_text(encoding="utf-8")
        count.reached += found["summary"]["covered_branches"]
        count.branches += found["summary"]["num_branches"]
        lines = text.splitlines()
        for line in sorted(set(refusals(text)) & set(found["missing_lines"])):
            count.silent.append(f"{path}:{line}: {lines[line - 1].strip()}")
    return dict(counts)


def table(counts: Mapping[str, Count]) -> str:
    """The counts as a table of Markdown."""
    whole = Count(sum(c.reached for c in counts.values()), sum(c.branches for c in counts.values()),
                  [line for c in counts.values() for line in c.silent])  # fmt: skip
    rows = ["| folder | branches | reached | refusals not reached |", "|---|---|---|---|"]
    for folder, count in [*counts.items(), ("all", whole)]:
        if count.branches:
            share = 100 * count.reached / count.branches
            rows.append(f"| {folder} | {count.branches:,} | {share:.1f} % | {len(count.silent)} |")
    return "\n".join(rows)


def main() -> None:
    """Read the command line, and print the table and what is not reached."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("files", type=Path, nargs="*", default=[Path(".coverage")])
    made.add_argument("--only", nargs="*", default=[""], help="beginnings of the folders that are shown")
    chosen = made.parse_args()
    counts = {f: c for f, c in counted(report(chosen.files)).items() if f.startswith(tuple(chosen.only))}
    print(table(counts))
    silent = [line for count in counts.values() for line in count.silent]
    print("\n".join(["", *silent]))
    raise SystemExit(bool(silent))


if __name__ == "__main__":
    main()
