"""Numbers that know which attribute of a model they are, so that a graph tells where each of its sizes came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

Key = str | int


@dataclass(frozen=True)
class Origin:
    """Where a model keeps a number.

    Attributes:
        path: of the module.
        keys: names of attributes and places in lists, from the module on.
    """

    path: str
    keys: tuple[Key, ...]

    def __str__(self) -> str:
        text = self.path
        for key in self.keys:
            text += f"[{key}]" if isinstance(key, int) else f".{key}"
        return text.removeprefix(".")

    def write(self, model: nn.Module, value: Any) -> None:
        """Put another number there; a tuple is made anew."""
        self._put(model.get_submodule(self.path), self.keys, value)

    def _put(self, owner: Any, keys: tuple[Key, ...], value: Any) -> None:
        key, rest = keys[0], keys[1:]
        assert isinstance(key, str)  # lists are met below, within their owners
        if rest and isinstance(rest[0], int):
            items = list(getattr(owner, key))
            items[rest[0]] = value
            value = type(getattr(owner, key))(items)
        elif rest:
            self._put(getattr(owner, key), rest, value)
            return
        setattr(owner, key, value)


class MarkedInt(int):
    """A whole number of a model's; what is computed with it is an ordinary one."""

    origin: Origin


class MarkedFloat(float):
    """A number with a point of a model's; what is computed with it is an ordinary one."""

    origin: Origin


_KINDS: dict[type, type[MarkedInt] | type[MarkedFloat]] = {int: MarkedInt, float: MarkedFloat}


def mark(model: nn.Module) -> None:
    """Put marked numbers in the place of those that a model's modules keep in attributes of their own.

    Also those in tuples and lists of numbers, and in plain objects (a configuration) that attributes hold. An object
    that several modules hold has the first of them as its owner.
    """
    seen: set[int] = set()
    for path, part in model.named_modules():
        for origin, value in _numbers(part, Origin(path, ()), seen):
            marked = _KINDS[type(value)](value)
            marked.origin = origin
            origin.write(model, marked)


def _numbers(owner: Any, at: Origin, seen: set[int]) -> Iterator[tuple[Origin, Any]]:
    if id(owner) in seen:
        return
    seen.add(id(owner))
    for name, value in list(vars(owner).items()):
        here = Origin(at.path, (*at.keys, name))
        if type(value) in _KINDS:
            if not name.startswith("_"):
                yield here, value
        elif type(value) in (tuple, list):
            for place, item in enumerate(value):
                if type(item) in _KINDS:
                    yield Origin(at.path, (*here.keys, place)), item
        elif isinstance(getattr(value, "__dict__", None), dict) and _plain(value):
            yield from _numbers(value, here, seen)


def _plain(value: Any) -> bool:
    """Whether an object only holds data: no module, tensor, class or function."""
    return not isinstance(value, (nn.Module, type)) and not callable(value) and not hasattr(value, "__torch_function__")
