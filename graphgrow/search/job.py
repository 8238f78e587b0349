"""One evaluation, as it is handed to a worker: plain values that travel as JSON."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphgrow.recipes.tables import from_table, to_table
from graphgrow.search.recipe import Evolution

Key = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """One evaluation of one candidate.

    Attributes:
        folder: of the study.
        recipe: of the evolution.
        number: of the candidate.
        rung: 0 makes the candidate and trains it for the first time; a higher one trains it on.
        generation: of the candidate.
        parents: numbers of its parents, that whose weights it inherits first; none for the base.
        rungs: the rung from which each parent's weights are taken.
    """

    folder: str
    recipe: Evolution
    number: int
    rung: int = 0
    generation: int = 0
    parents: tuple[int, ...] = ()
    rungs: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        """What tells evaluations apart."""
        return self.number, self.rung

    def to_json(self) -> dict[str, Any]:
        """The job as plain JSON types."""
        table: dict[str, Any] = to_table(self)
        return table

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """The job that `to_json` wrote.

        Raises:
            SearchError: if it has another form.
        """
        return from_table(cls, data, "job")


def stream(seed: int, *names: object) -> random.Random:
    """A stream of random numbers of its own for each name, whatever was drawn before by others."""
    return random.Random(stream_seed(seed, *names))


def stream_seed(seed: int, *names: object) -> int:
    """The seed of such a stream, below 2^56."""
    text = ":".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
