"""Frozen dataclasses from tables of a file, and back: every key known, every value of its type."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from graphgrow.errors import RecipeError

T = TypeVar("T")


def from_table(kind: type[T], table: object, where: str) -> T:
    """Read a dataclass whose fields are plain values, tuples, dictionaries and other such dataclasses.

    Args:
        kind: the dataclass; fields without a key in the table take their default.
        table: what a TOML, YAML or JSON parser made of it.
        where: how the table is called, for the message.

    Raises:
        RecipeError: if a key is unknown or missing, or a value has another type; names the place and what is wanted.
    """
    if not isinstance(table, Mapping):
        raise RecipeError(f"{where}: got {table!r:.60}, wanted a table of {_names(kind)}")
    hints = get_type_hints(kind)
    unknown = sorted(str(key) for key in table if key not in hints)
    if unknown:
        raise RecipeError(f"{where}: unknown {', '.join(unknown)}; there are {_names(kind)}")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # a dataclass, which no annotation can say
    required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        raise RecipeError(f"{where}: {', '.join(missing)} must be given")
    return kind(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()})


def to_table(value: Any) -> Any:
    """A dataclass as plain JSON types; what is None is left out."""
    if dataclasses.is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: to_table(item) for name, item in pairs if item is not None}
    if isinstance(value, (tuple, list)):
        return [to_table(item) for item in value]
    return {key: to_table(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _names(kind: type) -> str:
    return ", ".join(field.name for field in dataclasses.fields(kind))


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _value(next(one for one in arguments if one is not type(None)), value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(key): _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_table(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, but true is no number of steps
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise RecipeError(f"{where}: got {value!r:.60}, wanted {getattr(hint, '__name__', hint)}")
