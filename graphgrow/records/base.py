"""The base of all records: frozen values that read and write plain JSON."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from graphgrow.errors import LedgerError

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Record:
    """Base of all records: `to_json` and `from_json` between the dataclass and a dictionary of plain JSON types.

    Every dictionary carries the class's name as `kind` and its schema version as `schema`. JSON has no NaN and no
    infinity, so these floats are written as the strings "NaN", "Infinity" and "-Infinity".
    """

    SCHEMA: ClassVar[int] = 1

    def to_json(self) -> dict[str, Any]:
        """The record as a dictionary that `json.dumps(..., allow_nan=False)` accepts."""
        values = {field.name: _encode(getattr(self, field.name)) for field in fields(self)}
        return {"kind": type(self).__name__, "schema": self.SCHEMA, **values}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The record that `to_json` wrote.

        Raises:
            LedgerError: if the dictionary is of another kind or schema, has unknown or missing keys, or a value of
                another type than the field's.
        """
        if not isinstance(data, Mapping):
            raise LedgerError(f"{cls.__name__}: got {type(data).__name__}, wanted a JSON object; {_REMEDY}")
        if data.get("kind") != cls.__name__:
            raise LedgerError(f"got a record of kind {data.get('kind')!r}, wanted {cls.__name__!r}; {_REMEDY}")
        if data.get("schema") != cls.SCHEMA or isinstance(data.get("schema"), bool):
            raise LedgerError(
                f"{cls.__name__}: schema {data.get('schema')!r} is not the {cls.SCHEMA} that this version reads; "
                "read it with the version of graphgrow that wrote it"
            )
        names = [field.name for field in fields(cls)]
        unknown = sorted(str(key) for key in data if key not in ("kind", "schema", *names))
        missing = [name for name in names if name not in data]
        if unknown or missing:
            raise LedgerError(f"{cls.__name__}: unknown keys {unknown}, missing keys {missing}; {_REMEDY}")
        hints = get_type_hints(cls)
        return cls(**{name: _decode(hints[name], data[name], f"{cls.__name__}.{name}") for name in names})


_REMEDY = "pass what to_json() wrote, unchanged"


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _decode(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that `hint` names; `where` is the field, for the message."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _decode(next(one for one in arguments if one is not type(None)), value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _decode(arguments[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if is_dataclass(hint) and isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value)
    if hint is float and isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, but true is no number of bytes
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise LedgerError(f"{where}: got {value!r:.80}, wanted {wanted}; {_REMEDY}")
