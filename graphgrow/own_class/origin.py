"""Where a model keeps a number: in an attribute of a module, in a list, or in an object that it holds."""

from __future__ import annotations

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
