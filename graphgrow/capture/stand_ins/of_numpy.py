"""Numpy's numbers and functions in a forward: `h / np.power(d, 0.5)`, `h * np.sqrt(x.shape[-1])`, tensors of arrays.

A graph holds numbers of Python's. What numpy would make of sizes Python's own functions make of them; an array of which
a tensor is made is a tensor.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from graphgrow.errors import CaptureError


def _whole(function: Callable[[float], int]) -> Callable[[Any], Any]:
    """Of `math.floor` and `math.ceil`, whose numbers are whole; numpy's are not."""
    return lambda number: _called(function, number) * 1.0


def _called(function: Callable[..., Any], number: Any) -> Any:
    """A function of Python's; of a value of the graph, recorded in it."""
    proxy = isinstance(number, fx.Proxy)
    return number.tracer.create_proxy("call_function", function, (number,), {}) if proxy else function(number)


_OF_ONE: dict[str, Callable[[Any], Any]] = {
    "ceil": _whole(math.ceil),
    "floor": _whole(math.floor),
    **{
        name: functools.partial(_called, getattr(math, name))
        for name in ("sqrt", "exp", "log", "log2", "log10", "sin", "cos", "tanh")
    },
    "negative": operator.neg,
    "absolute": operator.abs,
    "square": lambda number: number * number,
}
_OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "true_divide": operator.truediv, "floor_divide": operator.floordiv, "remainder": operator.mod,
    "power": operator.pow, "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt,
    "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge, "maximum": max, "minimum": min,
}  # fmt: skip
_MAKERS = {torch.tensor, torch.as_tensor, torch.asarray}


def is_array(value: Any) -> bool:
    """Whether a value is an array of numpy's, and no number of its."""
    return type(value).__module__ == "numpy" and hasattr(value, "__setitem__")


def pythonic(value: Any) -> Any:
    """A number of numpy's as one of Python's; anything else as it is.

    Raises:
        CaptureError: if it is an array.
    """
    if is_array(value):
        raise CaptureError("an operator is given a numpy array; make a tensor of it: torch.from_numpy(array)")
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "dtype") else value


def tensor_of_array(kind: str, target: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The operator and its arguments where a tensor is made of an array: of the array as a tensor, or as a list."""
    if kind == "call_method" and target == "new_tensor" and len(args) > 1 and is_array(args[1]):
        return target, (args[0], args[1].tolist(), *args[2:])
    if kind != "call_function" or target not in _MAKERS or not args or not is_array(args[0]):
        return target, args
    return torch.as_tensor, (torch.tensor(args[0]), *args[1:])


def called_as_ufunc(ufunc: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What one of numpy's elementwise functions makes of numbers, values of the graph among them.

    Raises:
        CaptureError: if it is no function of numbers, or is given a tensor that numpy would look into.
    """
    name, args = ufunc.__name__, tuple(map(pythonic, args))
    if method == "__call__" and not kwargs:
        if name in _OF_ONE and len(args) == 1 and _is_number(args[0]):
            return _OF_ONE[name](args[0])
        plain = [type(arg) in (int, float, bool) or _is_number(arg) for arg in args]
        if name in _OF_TWO and len(args) == 2 and any(plain) and name not in ("maximum", "minimum") * (not all(plain)):
            return _OF_TWO[name](*args)
    raise CaptureError(f"np.{name} is given a tensor or has no counterpart for numbers; use torch's own functions")


def called_as_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`np.prod(x.shape[1:])`: what a function of numpy's makes of sizes.

    Raises:
        CaptureError: if it is any other function.
    """
    sizes = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], fx.Proxy) else None
    if function.__name__ == "prod" and sizes is not None and not isinstance(_example(sizes), torch.Tensor):
        return functools.reduce(operator.mul, sizes, 1)
    raise CaptureError(f"np.{function.__name__} is given a value of the graph; use torch's or Python's own functions")


def _example(value: fx.Proxy) -> Any:
    return value.node.meta["value"]


def _is_number(value: Any) -> bool:
    """Whether a value of the graph is a number; of a tensor numpy would make an array."""
    return isinstance(value, fx.Proxy) and isinstance(_example(value), (int, float))
