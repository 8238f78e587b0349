"""What one batch of models came to: a line of JSON that later batches, of later commits too, are added to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LONG = 8  # mutations in a chain that counts


@dataclass(frozen=True)
class Find:
    """Something that should not be.

    Attributes:
        model: the code that makes it.
        mutations: with their seeds, as few as show it.
        what: the kind of find and what was seen.
    """

    model: str
    mutations: tuple[tuple[str, int], ...]
    what: str


@dataclass
class Batch:
    """The counts of one batch.

    Attributes:
        seed: of the batch: with the commit, all that is needed to draw it again.
        commit: of the sources.
        counts: by name: "models", "rewrites" (each compared by outputs in every mode that it claims), "chains" (of
            `LONG` and more, compared at each step), "verdicts", "preserved", "declined", and the sampled checks.
        passes: rewrites by pass.
        lengths: chains by length.
        finds: what should not be.
        seconds: of CPU time.
    """

    seed: int
    commit: str
    counts: Counter[str] = field(default_factory=Counter)
    passes: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    finds: list[Find] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        """The batch as one line."""
        return json.dumps({**vars(self), "finds": [asdict(find) for find in self.finds]})


def read(path: Path) -> list[dict[str, Any]]:
    """The batches in a file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in whole if line.endswith("\n")]


def append(path: Path, batch: Batch) -> None:
    """Add a batch at the end, behind a line that was cut off if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    if torn:
        kept = path.read_bytes()
        path.write_bytes(kept[: kept.rfind(b"\n") + 1])
    with path.open("a", encoding="utf-8") as file:
        file.write(batch.line() + "\n")


def total(batches: Iterable[dict[str, Any]]) -> tuple[Counter[str], Counter[str], list[Find]]:
    """Counts, rewrites by pass, and finds of several batches together."""
    counts, passes, finds = Counter[str](), Counter[str](), list[Find]()
    for batch in batches:
        counts.update(batch["counts"])
        passes.update(batch["passes"])
        finds += [Find(f["model"], tuple((m, s) for m, s in f["mutations"]), f["what"]) for f in batch["finds"]]
        counts["longest chain"] = max([counts["longest chain"], *map(int, batch["lengths"])])
        counts["CPU seconds"] += round(batch["seconds"])
    return counts, passes, finds
