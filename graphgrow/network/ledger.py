"""The ledger: the mutations applied to a base, with their seeds; base + ledger rebuilds a grown model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphgrow.errors import LedgerError, MutationError
from graphgrow.network.syntax import read_syntax

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One applied mutation: its text and the seed of its fresh weights."""

    mutation: str
    seed: int

    def __str__(self) -> str:
        return f"{self.mutation} seed={self.seed}"


@dataclass(frozen=True)
class Ledger:
    """Applied mutations, first to last. Prints one a line."""

    entries: tuple[Entry, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))

    def with_entry(self, entry: Entry) -> Ledger:
        """This ledger with one more entry."""
        return Ledger((*self.entries, entry))

    def after(self, base: Ledger) -> tuple[Entry, ...] | None:
        """The entries behind those of `base`; None where this ledger does not begin with them."""
        if self.entries[: len(base)] != base.entries:
            return None
        return self.entries[len(base) :]

    def to_json(self) -> str:
        """The ledger as JSON with its schema version."""
        entries = [{"mutation": entry.mutation, "seed": entry.seed} for entry in self.entries]
        return json.dumps({"schema": SCHEMA_VERSION, "entries": entries}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Read a ledger. Passes that it names and that are not there are missed when it is replayed.

        Raises:
            LedgerError: if the text is not a ledger, holds something unknown, or comes from a newer version.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise LedgerError(f"this is not a ledger: {error}") from None
        return cls.from_data(data)

    @classmethod
    def from_data(cls, data: Any) -> Ledger:
        """Read a ledger from decoded JSON; raises as `from_json`."""
        if not isinstance(data, dict) or set(data) != {"schema", "entries"} or not isinstance(data["entries"], list):
            raise LedgerError("this is not a ledger: it wants the keys `schema` and `entries`, and no others")
        version = data["schema"]
        if type(version) is not int or version < 1:
            raise LedgerError(f"this is not a ledger: its schema version is {version!r}")
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"the ledger has schema {version}, this graphgrow reads up to {SCHEMA_VERSION}; install a newer one"
            )
        return cls(tuple(_entry(number, item) for number, item in enumerate(data["entries"], 1)))


def _entry(number: int, item: Any) -> Entry:
    if not isinstance(item, dict) or set(item) != {"mutation", "seed"}:
        raise LedgerError(f"entry {number} of the ledger wants `mutation` and `seed`, not {item!r:.80}")
    text, seed = item["mutation"], item["seed"]
    if not isinstance(text, str) or type(seed) is not int or not 0 <= seed < 2**63:
        raise LedgerError(f"entry {number} of the ledger is damaged: {item!r:.80}")
    try:
        read_syntax(text)
    except MutationError as error:
        raise LedgerError(f"entry {number} of the ledger cannot be read: {error}") from None
    return Entry(text, seed)
