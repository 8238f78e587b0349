"""`int(...)` of a computed size, `type(...)` and `callable(...)` in a model's own code: no proxy can answer these.

`int(x.shape[0] / n)` would else be the example's number, and the graph one for the example's batch size alone;
`type(p)` would be the proxy's, which can be called, whatever it stands for. The names are exchanged in the code of the
model's functions, where they are called and nothing else is done with them.
"""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from graphgrow.capture.model.frames import is_users

_PREFIX = "_graphgrow_"  # of names that are found among the builtins, wherever the code stands


@contextmanager
def builtins_called(model: nn.Module, seen: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """While inside, let other functions take the calls of builtins (by name, `int`) in a model's code."""
    before = {function: function.__code__ for function in _functions(model, seen)}
    for name, instead in seen.items():
        setattr(builtins, _PREFIX + name, instead)
    for function in before:
        for name in seen:
            function.__code__ = _exchanged(function.__code__, name)
    try:
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code
        for name in seen:
            delattr(builtins, _PREFIX + name)


def _functions(model: nn.Module, names: Collection[str]) -> list[types.FunctionType]:
    """The functions of a model's classes and modules, and those that they name, but for torch's and our own."""
    parts = list(model.modules())
    kinds = dict.fromkeys(kind for part in parts for kind in type(part).__mro__)
    pending = [item for holder in (*kinds, *parts) for item in vars(holder).values()]
    found: dict[types.FunctionType, None] = {}
    while pending:
        item = pending.pop()
        function = item.__func__ if isinstance(item, (staticmethod, classmethod)) else item
        if not isinstance(function, types.FunctionType) or function in found or not _is_users(function):
            continue
        found[function] = None
        pending += _named(function.__code__, function.__globals__)
        cells = (cell for cell in function.__closure__ or () if cell != types.CellType())  # not those without contents
        pending += [cell.cell_contents for cell in cells]
    named = {function: {name for code in _codes(function.__code__) for name in code.co_names} for function in found}
    return [function for function in found if not named[function].isdisjoint(names)]


def _is_users(function: types.FunctionType) -> bool:
    return is_users(function.__code__.co_filename)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of those defined within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _named(code: types.CodeType, known: Mapping[str, Any]) -> list[Any]:
    """What a function names among the globals of its file."""
    return [known[name] for part in _codes(code) for name in part.co_names if name in known]


def _exchanged(code: types.CodeType, name: str) -> types.CodeType:
    """The code with the other function's name for a class; as it is where that is used otherwise than by a call."""
    constants = tuple(_exchanged(c, name) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    names = tuple(_PREFIX + name if other == name else other for other in code.co_names)
    uses = [step for step in dis.get_instructions(code) if step.argval == name and step.opcode in dis.hasname]
    called = all(step.opname == "LOAD_GLOBAL" and (step.arg or 0) & 1 for step in uses)  # it makes room for a call
    return code.replace(co_consts=constants, co_names=names if called else code.co_names)
