"""Operators without data run in Python, and not by way of Dynamo, which takes longer to load than most traces.

torch's Python forms of operators are shielded from Dynamo by a wrapper that loads it to be told so. As long as it is
not there nothing can be compiled, and the form itself is what the wrapper would call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_DYNAMO = "torch._dynamo"


@contextmanager
def apart_from_dynamo() -> Iterator[None]:
    """While inside, answer torch's wrappers in the place of Dynamo, unless that is there; they forget it afterwards."""
    if _DYNAMO in sys.modules:
        yield
        return
    instead = _Instead()
    sys.modules[_DYNAMO] = instead
    try:
        yield
    finally:
        instead.leave()


class _Instead(ModuleType):
    """Stands where Dynamo would; whoever asks for more than `disable` gets Dynamo itself."""

    def __init__(self) -> None:
        super().__init__(_DYNAMO)
        self._shielded: list[Any] = []

    def disable(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """The function as it is."""
        self._shielded.append(fn)
        return fn

    def leave(self) -> None:
        """Make room for Dynamo, and let the wrappers ask anew."""
        if sys.modules.get(_DYNAMO) is self:
            del sys.modules[_DYNAMO]
        for fn in self._shielded:  # `torch._compile` keeps what it was told there
            vars(fn).pop("__dynamo_disable", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # asked of every module that is loaded
            raise AttributeError(name)
        self.leave()
        return getattr(import_module(_DYNAMO), name)
