"""Recipes: files that list mutations, one a line."""

from __future__ import annotations

import re
from pathlib import Path

from graphgrow.errors import MutationError
from graphgrow.network.ledger import Entry
from graphgrow.rewrite.text import parse_mutation

_SEED = re.compile(r"\s+seed=(\d{1,19})\s*$")
_LARGEST = 2**20


def read_recipe(path: str | Path, seed: int = 0) -> tuple[Entry, ...]:
    """Read a recipe: one mutation a line, empty lines and what stands behind `#` left out.

    A line may end with ` seed=7`; a printed ledger is a recipe.

    Args:
        path: of the file, UTF-8 text of at most 1 MiB.
        seed: of the lines that name none.

    Raises:
        MutationError: if the file cannot be read, holds no mutation, or a line is none; names the line.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_LARGEST + 1)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise MutationError(f"cannot read the recipe {path}: {reason}") from error
    if len(raw) > _LARGEST:
        raise MutationError(f"the recipe {path} is larger than 1 MiB; a recipe has one mutation a line")
    entries = [
        _entry(line, seed, f"line {number} of {path}")
        for number, full in enumerate(text.splitlines(), 1)
        if (line := full.partition("#")[0].strip())
    ]
    if not entries:
        raise MutationError(
            f"the recipe {path} lists no mutation; write one a line, as widen(layer1.0.conv1, extra=16)"
        )
    return tuple(entries)


def _entry(line: str, seed: int, place: str) -> Entry:
    own = _SEED.search(line)
    mutation = line[: own.start()] if own else line
    try:
        parsed = parse_mutation(mutation)
    except MutationError as error:
        raise MutationError(f"{place}: {error}") from None
    chosen = int(own[1]) if own else seed
    if chosen >= 2**63:
        raise MutationError(f"{place}: a seed is a whole number from 0 to 2^63 - 1, not {chosen}")
    return Entry(str(parsed), chosen)
