"""The folder `passes/` is the registry: each file there holds one pass."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from graphgrow.errors import MutationError
from graphgrow.rewrite.contract import Mutation

PACKAGE = "graphgrow.passes"


@cache
def passes() -> dict[str, type[Mutation]]:
    """Every pass by its name, in the order of the names.

    Raises:
        TypeError: if a file of the folder does not hold exactly one pass, or not under its own name.
    """
    found: dict[str, type[Mutation]] = {}
    package = importlib.import_module(PACKAGE)
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        module = importlib.import_module(f"{PACKAGE}.{info.name}")
        own = [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, Mutation) and item.__module__ == module.__name__
        ]
        if len(own) != 1 or own[0].name.replace("-", "_") != info.name:
            raise TypeError(f"{module.__name__} must hold exactly one pass, named {info.name.replace('_', '-')!r}")
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
