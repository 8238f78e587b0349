"""Input specifications as JSON."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch

from graphgrow.errors import LedgerError
from graphgrow.ir.inputs import InputSpec, TensorSpec

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip
_LARGEST_INPUT = 2**31
_DEEPEST_INPUT = 16


def inputs_to_data(inputs: InputSpec) -> dict[str, Any]:
    """An input specification as plain JSON types.

    Raises:
        LedgerError: if an input that is not a tensor is no plain value either.
    """
    return {
        "args": [_to_data(item) for item in inputs.args],
        "kwargs": {name: _to_data(item) for name, item in inputs.kwargs.items()},
    }


def inputs_from_data(data: Any) -> InputSpec:
    """Read an input specification.

    Raises:
        LedgerError: if it has another form.
    """
    if not isinstance(data, dict) or set(data) != {"args", "kwargs"}:
        raise LedgerError(f"an input specification wants `args` and `kwargs`, not {data!r:.80}")
    if not isinstance(data["args"], list) or not isinstance(data["kwargs"], dict):
        raise LedgerError("an input specification has `args` as a list and `kwargs` as an object")
    return InputSpec(
        tuple(_from_data(item) for item in data["args"]),
        {name: _from_data(item) for name, item in data["kwargs"].items()},
    )


def _to_data(item: Any) -> Any:
    if isinstance(item, TensorSpec):
        dtype = str(item.dtype).removeprefix("torch.")
        order = {"order": item.order} if item.order else {}
        given = {"given": list(item.given)} if item.given else {}
        return {"shape": list(item.shape), "dtype": dtype, "low": item.low, "high": item.high, **order, **given}
    if item is None or isinstance(item, (bool, int, float, str)):
        return {"value": item}
    if type(item) in (list, tuple):
        return {type(item).__name__: [_to_data(inner) for inner in item]}
    if type(item) is dict and all(isinstance(key, str) for key in item):
        return {"dict": {key: _to_data(inner) for key, inner in item.items()}}
    raise LedgerError(
        f"an input of type {type(item).__name__} cannot be saved; pass tensors and plain values, in lists and dicts"
    )


def _from_data(item: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST_INPUT:
        raise LedgerError(f"an input specification is nested more than {_DEEPEST_INPUT} times")
    if isinstance(item, dict) and set(item) == {"value"}:
        if item["value"] is None or isinstance(item["value"], (bool, int, float, str)):
            return item["value"]
    elif isinstance(item, dict) and set(item) in ({"list"}, {"tuple"}, {"dict"}):
        ((kind, inner),) = item.items()
        if kind == "dict" and isinstance(inner, dict):
            return {key: _from_data(one, depth + 1) for key, one in inner.items()}
        if kind != "dict" and isinstance(inner, list):
            return (
                [_from_data(one, depth + 1) for one in inner]
                if kind == "list"
                else tuple(_from_data(one, depth + 1) for one in inner)
            )
    elif isinstance(item, dict) and set(item) - {"order", "given"} == {"shape", "dtype", "low", "high"}:
        shape, numbers = item["shape"], (item["low"], item["high"])
        sound = (
            isinstance(shape, list)
            and all(type(size) is int and size > 0 for size in shape)
            and math.prod(shape) <= _LARGEST_INPUT
            and item["dtype"] in _DTYPES
            and all(type(number) is int for number in numbers)
            and numbers[0] <= numbers[1]
            and isinstance(item.get("order", ""), str)
            and isinstance(item.get("given", []), list)
            and all(type(number) is int for number in item.get("given", []))
        )
        if sound:
            further = item.get("order", ""), tuple(item.get("given", ()))
            with contextlib.suppress(ValueError):  # what such a tensor has not: damaged, as below
                return TensorSpec(tuple(shape), _DTYPES[item["dtype"]], *numbers, *further)
    raise LedgerError(f"an input specification is damaged: {item!r:.80}")
