"""The text form of mutations: `widen(layer1.0.conv1, extra=16)`."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable
from typing import Any

from graphgrow.errors import LedgerError, MutationError
from graphgrow.network.ledger import Entry
from graphgrow.network.syntax import WANTED, read_syntax, split
from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.registry import pass_named

_RUN = re.compile(r"(\d+)\.\.(\d+)")
_LONGEST_RUN = 2**20


def parse_mutation(text: str) -> Mutation:
    """Read a mutation from its text.

        mutation = gg.parse_mutation("widen(stem, extra=8)")  # mutation.extra is 8, str(mutation) is the text

    Raises:
        MutationError: if the text has another form, or names an unknown pass or option.
    """
    written = read_syntax(text)
    mutation_class = pass_named(written.name)
    fields = dataclasses.fields(mutation_class)
    hints = typing.get_type_hints(mutation_class)
    values: dict[str, Any] = {}
    for option, value in written.arguments:
        name = option or fields[0].name
        if name not in {field.name for field in fields}:
            known = ", ".join(field.name for field in fields)
            comma = "; is a comma missing?" if len(name.split()) > 1 else ""
            raise MutationError(f"`{written.name}` has no option `{name}`; it has {known}{comma}")
        if name in values:
            raise MutationError(f"{text!r} gives `{name}` twice")
        values[name] = _read(value, hints[name], name, text)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        raise MutationError(f"{text!r} lacks {', '.join(missing)}; {WANTED}")
    return mutation_class(**values)


def mutations_of(entries: Iterable[Entry]) -> list[Mutation]:
    """The mutations that the entries of a ledger name.

    Raises:
        LedgerError: if one names an unknown pass or option: of another version, or of passes that are not registered.
    """
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(parse_mutation(entry.mutation))
        except MutationError as error:
            raise LedgerError(f"entry {number} of the ledger cannot be read: {error}") from None
    return found


def _read(value: str, hint: Any, name: str, text: str) -> Any:
    if hint is int or hint is float:
        try:
            return hint(value)
        except ValueError:
            raise MutationError(f"{text!r}: `{name}` wants {hint.__name__}, not {value!r}") from None
    if hint is bool:
        if value not in ("true", "false"):
            raise MutationError(f"{text!r}: `{name}` wants true or false, not {value!r}")
        return value == "true"
    if typing.get_origin(hint) is tuple:
        if not (value.startswith("[") and value.endswith("]")):
            raise MutationError(f"{text!r}: `{name}` wants a list in brackets, not {value!r}")
        inner = typing.get_args(hint)[0]
        items = [item.strip() for item in split(value[1:-1], text)]
        return tuple(part for item in items for part in _read_items(item, inner, name, text))
    return value


def _read_items(item: str, hint: Any, name: str, text: str) -> tuple[Any, ...]:
    """One item of a list; whole numbers may be given as a run, `8..15`."""
    run = _RUN.fullmatch(item) if hint is int else None
    if run is None:
        return (_read(item, hint, name, text),)
    first, last = int(run[1]), int(run[2])
    if not 0 <= last - first < _LONGEST_RUN:
        raise MutationError(f"{text!r}: `{name}` wants a run of numbers that goes up, not {item!r:.80}")
    return tuple(range(first, last + 1))
