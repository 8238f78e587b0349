"""The folder `passes/` is the registry: each file there holds one pass. Users register passes of their own."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

from graphgrow.errors import MutationError, did_you_mean
from graphgrow.rewrite.contract import Mutation

PACKAGE = "graphgrow.passes"


class _Named(Protocol):
    name: ClassVar[str]


C = TypeVar("C", bound=_Named)
P = TypeVar("P", bound=type[Mutation])
_OWN: dict[str, type[Mutation]] = {}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def passes() -> dict[str, type[Mutation]]:
    """Every pass by its name, in the order of the names: those of the folder, and those that were registered.

    Raises:
        TypeError: if a file of the folder does not hold exactly one pass, or not under its own name.
    """
    return dict(sorted((_of_the_folder() | _OWN).items()))


@cache
def _of_the_folder() -> dict[str, type[Mutation]]:
    return classes_of(PACKAGE, Mutation, "pass")  # type: ignore[type-abstract]


def register_pass(kind: P) -> P:
    """Make a pass of your own known by its name: in text, in ledgers, and to `graph.mutations()`.

    A decorator of the class, above `@dataclass(frozen=True)`. A ledger that names the pass is read where its module
    was imported before. docs/writing_passes.md has an example.

    Args:
        kind: a subclass of `gg.Mutation`. The same class of a module that is imported anew takes the place of the old.

    Returns:
        The class.

    Raises:
        MutationError: if it is no such class, is no frozen dataclass, lacks a method or its name, or has the name of
            another pass.
    """
    _refuse_unfit(kind)
    known = passes().get(kind.name)
    if known is not None and (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise MutationError(f"there is a pass `{kind.name}` already, {known.__module__}.{known.__qualname__}")
    _OWN[kind.name] = kind
    return kind


def own_passes() -> dict[str, type[Mutation]]:
    """The passes that `register_pass` made known, by name."""
    return dict(_OWN)


def _refuse_unfit(kind: Any) -> None:
    """Raises `MutationError` for what is no pass."""
    if not isinstance(kind, type) or not issubclass(kind, Mutation):
        raise MutationError(f"register_pass wants a subclass of gg.Mutation, not {kind!r:.80}")
    what = kind.__qualname__
    parameters = getattr(kind, "__dataclass_params__", None)
    if "__dataclass_fields__" not in vars(kind) or not getattr(parameters, "frozen", False):
        raise MutationError(f"{what} is no frozen dataclass; write @dataclass(frozen=True) below @gg.register_pass")
    if inspect.isabstract(kind):
        raise MutationError(f"{what} lacks {', '.join(sorted(kind.__abstractmethods__))}")
    for name in ("name", "summary"):
        if not isinstance(getattr(kind, name, None), str):
            raise MutationError(f"{what} lacks `{name}`: {name}: ClassVar[str] = ...")
    if _NAME.fullmatch(kind.name) is None:
        raise MutationError(f"{what} cannot be called {kind.name!r}; a name is words of small letters and hyphens")
    if not dataclasses.fields(kind):
        raise MutationError(f"{what} lacks a field that names the site")


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
        hint = did_you_mean(name, known, f"there are {', '.join(known)}")
        raise MutationError(f"there is no pass `{name}`; {hint}")
    return known[name]


def pass_names() -> tuple[str, ...]:
    """The names of all passes."""
    return tuple(passes())
