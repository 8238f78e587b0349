"""Forwards behind wrappers: decorators that take anything and keep the signature of what is inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def called_by_name(function: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    """A function of all arguments of another, one by one in its order, that calls its wrapped form with them."""
    parameters = inspect.signature(inner).parameters.values()
    ordered = sorted(parameters, key=lambda p: (p.kind is p.VAR_KEYWORD, p.kind is p.VAR_POSITIONAL))

    def called(*values: Any) -> Any:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        given = list(zip(ordered, values, strict=True))
        positional = any(value for parameter, value in given if parameter.kind is parameter.VAR_POSITIONAL)
        for place, (parameter, value) in enumerate(given):
            if parameter.kind is parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif (
                not place
                or parameter.kind is parameter.POSITIONAL_ONLY
                or (positional and parameter.kind is not parameter.KEYWORD_ONLY)
            ):
                args.append(value)
            else:  # wrappers look for what they change by name
                kwargs[parameter.name] = value
        return function(*args, **kwargs)

    return called
