"""`int(...)` of a computed size in a model's own code, as a node of the graph: what a class returns, none could answer.

`int(x.shape[0] / n)` would else be the example's number, and the graph one for the example's batch size alone. The name
is exchanged in the code of the model's functions, where it is called and nothing else is done with it.
"""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from graphgrow.capture.frames import is_users

_NAME = "_graphgrow_int"  # found among the builtins, wherever the code stands


@contextmanager
def ints_seen(model: nn.Module, seen: Callable[..., Any]) -> Iterator[None]:
    """While inside, let another function take the calls of `int` in a model's code."""
    before = {function: function.__code__ for function in _functions(model)}
    setattr(builtins, _NAME, seen)
    for function, code in before.items():
        function.__code__ = _exchanged(code)
    try:
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code
        delattr(builtins, _NAME)


def _functions(model: nn.Module) -> list[types.FunctionType]:
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
    return [function for function in found if any("int" in code.co_names for code in _codes(function.__code__))]


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


def _exchanged(code: types.CodeType) -> types.CodeType:
    """The code with the other function's name for `int`; as it is where `int` is used otherwise than by a call."""
    constants = tuple(_exchanged(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    names = tuple(_NAME if name == "int" else name for name in code.co_names)
    uses = [step for step in dis.get_instructions(code) if step.argval == "int" and step.opcode in dis.hasname]
    called = all(step.opname == "LOAD_GLOBAL" and (step.arg or 0) & 1 for step in uses)  # it makes room for a call
    return code.replace(co_consts=constants, co_names=names if called else code.co_names)
