"""A function behind wrappers is called with all its arguments, each as its kind asks for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from graphgrow.capture.stand_ins.wrappers import called_by_name


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs), sorted(kwargs)

    return wrapped


@_noting
def _plain(self: Any, x: int, y: int = 2) -> Any:
    return self, x, y


@_noting
def _by_kind(self: Any, x: int, /, y: int, *, z: int, **more: int) -> Any:
    return self, x, y, z, more


@_noting
def _starred(self: Any, x: int, *rest: int, z: int) -> Any:
    return self, x, rest, z


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (_plain, (0, 1, 2), ((0, 1, 2), ["x", "y"])),  # by name, which wrappers look for
        (_by_kind, (0, 1, 2, 3, {"w": 4}), ((0, 1, 2, 3, {"w": 4}), ["w", "y", "z"])),
        (_starred, (0, 1, 3, (5, 6)), ((0, 1, (5, 6), 3), ["z"])),  # behind names, nothing could follow by position
        (_starred, (0, 1, 3, ()), ((0, 1, (), 3), ["x", "z"])),
    ],
)
def test_each_argument_goes_where_it_belongs(
    function: Callable[..., Any], values: tuple[Any, ...], expected: Any
) -> None:
    """`values` are in the order of a code object: keyword-only ones stand before what stars take."""
    assert called_by_name(function, inspect.unwrap(function))(*values) == expected
