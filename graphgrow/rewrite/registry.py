"""The folder `passes/` is the registry: each file there holds one pass."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import ClassVar, Protocol, TypeVar

from graphgrow.errors import MutationError
from graphgrow.rewrite.contract import Mutation

PACKAGE = "graphgrow.passes"


class _Named(Protocol):
    name: ClassVar[str]


C = TypeVar("C", bound=_Named)


@cache
def passes() -> dict[str, type[Mutation]]:
    """Every pass by its name, in the order of the names.

    Raises:
        TypeError: if a file of the folder does not hold exactly one pass, or not under its own name.
    """
    return classes_of(PACKAGE, Mutation, "pass")  # type: ignore[type-abstract]


def classes_of(package: str, base: type[C], what: str) -> dict[str, type[C]]:
    """The one class of each file of a package, by its name, in the order of the names.

    Args:
        package: its dotted name.
        base: of the classes, which have a `name`.
        what: they are called, for the message.

    Raises:
        TypeError: if a file does not hold exactly one, or not under its own name (with hyphens for underscores).
    """
    found: dict[str, type[C]] = {}
    folder = importlib.import_module(package).__path__
    for info in sorted(pkgutil.iter_modules(folder), key=lambda item: item.name):
        module = importlib.import_module(f"{package}.{info.name}")
        own = [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, base) and item.__module__ == module.__name__
        ]
        if len(own) != 1 or own[0].name.replace("-", "_") != info.name:
            raise TypeError(f"{module.__name__} must hold exactly one {what}, named {info.name.replace('_', '-')!r}")
        found[own[0].name] = own[0]
    return found


def pass_named(name: str) -> type[Mutation]:
    """The pass of that name.

    Raises:
        MutationError: if there is none; lists those there are.
    """
    known = passes()
    if name not in known:
        raise MutationError(f"there is no pass `{name}`; there are {', '.join(known)}")
    return known[name]


def pass_names() -> tuple[str, ...]:
    """The names of all passes."""
    return tuple(passes())
