"""Masks, and tensors that say how often, spelled as the places that they choose: what is chosen from can grow then."""

from __future__ import annotations

import operator
from typing import Any

import torch

from graphgrow.capture.stand_ins.proxies import ValueProxy
from graphgrow.capture.tracing.by_values import REPEATED, Holder
from graphgrow.layers import set_item

_WHERE = {torch.where: True, torch.argwhere: False, "argwhere": False}
"""Other names of `nonzero`, and whether they answer the numbers of each axis by themselves."""

_MASKED = {torch.masked_select, "masked_select"}


def places_asked(
    tracer: Holder, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """The call that asks for places where masks are given: `x[mask]` is `x[mask.nonzero()]`, as is `where(mask)`.

    So it is where rows are repeated as often as a tensor says.
    """
    if kind not in ("call_function", "call_method"):
        return kind, target, args, kwargs
    if target in REPEATED:
        return _rows_asked(tracer, kind, target, args, kwargs)
    if target in _WHERE and len(args) == 1 and not kwargs and args[0].example.dim():
        return "call_function", torch.nonzero, args, {"as_tuple": True} if _WHERE[target] else {}
    if target is set_item:
        return _written_asked(tracer, kind, target, args, kwargs)
    if target in _MASKED and len(args) == 2 and args[0].example.shape == args[1].example.shape:
        kind, target = "call_function", operator.getitem
    if target is not operator.getitem or len(args) != 2:
        return kind, target, args, kwargs
    return kind, target, (args[0], _index_asked(tracer, args[1])), kwargs


def _index_asked(tracer: Holder, given: Any) -> Any:
    """An index with the places that its masks choose."""
    items = given if isinstance(given, tuple) else (given,)
    if not any(map(_is_mask, items)):
        return given
    index: list[Any] = []
    for item in items:
        if _is_mask(item):
            places = tracer.create_proxy("call_function", torch.nonzero, (item,), {"as_tuple": True})
            index += [places[i] for i in range(item.example.dim())]
        else:
            index.append(item)
    return index[0] if len(index) == 1 else tuple(index)


def _written_asked(
    tracer: Holder, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """`x[mask] = value` as torch carries it out: one number is filled in, others are written at the places chosen."""
    written, given, value = args
    example = _example(written)
    items = given if isinstance(given, tuple) else (given,)
    masks = [item for item in items if _is_mask(item)]
    in_front = (isinstance(item, slice) and item.start is item.stop is item.step is None for item in items[:-1])
    if len(masks) == 1 and items[-1] is masks[0] and all(in_front) and _fills(example.dtype, value):
        behind = example.dim() - len(items) + 1 - masks[0].example.dim()
        mask = masks[0][(..., *[None] * behind)] if behind else masks[0]
        return "call_method", "masked_fill_", (written, mask, value), {}
    return kind, target, (written, _index_asked(tracer, given), value), kwargs


def _rows_asked(
    tracer: Holder, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """`repeat_interleave` by a tensor of one axis as torch carries it out: rows looked up."""
    given = dict(zip(("input", "repeats", "dim"), args, strict=False)) | kwargs
    rows, repeats = given.get("input"), given.get("repeats")
    if rows is None or not isinstance(repeats, ValueProxy):
        return kind, target, args, kwargs
    example = repeats.example
    if not isinstance(example, torch.Tensor) or not example.dim():
        return kind, target, args, kwargs
    dim = given.get("dim")
    if dim is None:
        rows, dim = tracer.create_proxy("call_method", "flatten", (rows,), {}), 0
    if example.shape == (1,):
        repeats = repeats.expand(rows.shape[dim])
    counted = {"output_size": kwargs["output_size"]} if "output_size" in kwargs else {}
    places = tracer.create_proxy("call_function", torch.repeat_interleave, (repeats,), counted)
    return "call_method", "index_select", (rows, dim, places), {}


def _fills(dtype: torch.dtype, value: Any) -> bool:
    """Whether a value is one number that tensors of a dtype are filled with as it is written into them."""
    number = _example(value)
    if not isinstance(number, torch.Tensor):
        if not isinstance(number, (bool, int, float, complex)):
            return False
        number = torch.tensor(number)
    fits = torch.can_cast(number.dtype, dtype) and (dtype is not torch.bool or number.dtype is torch.bool)
    return fits and not number.dim()


def _is_mask(item: Any) -> bool:
    example = _example(item)
    return isinstance(example, torch.Tensor) and example.dtype is torch.bool and example.dim() > 0


def _example(item: Any) -> Any:
    """What a proxy stands for; anything else itself."""
    return item.example if isinstance(item, ValueProxy) else item
