"""The syntax of mutations as text, whatever passes there are: `name(site, option=value, list=[1, 2])`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphgrow.errors import MutationError

_FORM = re.compile(r"\s*([a-z][a-z0-9-]*)\s*\((.*)\)\s*", re.DOTALL)
WANTED = "a mutation reads `pass(site, option=value)`, for instance `widen(layer1.0.conv1, extra=16)`"


@dataclass(frozen=True)
class Written:
    """A mutation as it is written.

    Attributes:
        name: of its pass.
        arguments: option and value of each; the option of the first is None where it is not named.
    """

    name: str
    arguments: tuple[tuple[str | None, str], ...]


def read_syntax(text: str) -> Written:
    """Take a mutation's text apart.

    Raises:
        MutationError: if it has another form, or gives an option twice.
    """
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise MutationError(f"cannot read {text!r}: {WANTED}")
    arguments: list[tuple[str | None, str]] = []
    for position, item in enumerate(split(match[2], text)):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals and position > 0:
            raise MutationError(f"cannot read {text!r}: `{name}` has no option name; {WANTED}")
        if equals and name in {known for known, _ in arguments}:
            raise MutationError(f"{text!r} gives `{name}` twice")
        arguments.append((name, value) if equals else (None, name))
    return Written(match[1], tuple(arguments))


def split(body: str, text: str) -> list[str]:
    """The arguments between the commas that stand outside brackets."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(body):
        depth += (character == "[") - (character == "]")
        if depth < 0:
            break
        if character == "," and depth == 0:
            items.append(body[start:position])
            start = position + 1
    if depth:
        raise MutationError(f"cannot read {text!r}: a bracket is left open")
    items.append(body[start:])
    return [item for item in items if item.strip()]
