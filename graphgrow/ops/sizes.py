"""Sizes and other plain facts of a tensor: shape, size(), device, dtype, and arithmetic on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphgrow.ir.facts import Derived, Extent
from graphgrow.ir.value import Value
from graphgrow.layers import (
    OneMode,
    require_admitted,
    require_decision,
    require_dtypes,
    require_form,
    require_same,
    require_sizes,
    require_values,
)
from graphgrow.ops.call import Call, plain
from graphgrow.ops.registry import rule

_MEASURES = {"size", "dim", "ndimension", "get_device"}
_ATTRIBUTES = {"shape", "ndim", "dtype", "device"}


def only_measured(node: fx.Node) -> bool:
    """Whether all that read a tensor ask for its sizes or its kind, and none for its entries."""

    def measures(reader: fx.Node) -> bool:
        if reader.op == "call_method":
            return reader.target in _MEASURES
        return reader.target is getattr and reader.args[1] in _ATTRIBUTES

    return bool(node.users) and all(map(measures, node.users))


def only_kind_read(node: fx.Node) -> bool:
    """Whether all that read a tensor ask for its dtype or its device, which are the same whatever its sizes."""
    return all(reader.target is getattr and reader.args[1] in ("dtype", "device") for reader in node.users)


@rule(getattr)
def attribute(call: Call, value: Any, name: str, *default: Any) -> Any:
    """`x.shape` is read off the axes; a transposed view is one; the rest is plain."""
    if isinstance(value, Value) and name == "shape":
        return tuple(map(Extent.of, value.axes))
    if isinstance(value, Value) and name in ("T", "mT", "H", "mH"):
        axes = (*value.axes[:-2], value.axes[-1], value.axes[-2]) if name != "T" else tuple(reversed(value.axes))
        return call.output(axes, call.same_flow(value))
    if isinstance(value, Value) and name in ("real", "imag"):
        return call.output(value.axes, call.same_flow(value))
    if isinstance(value, tuple) and hasattr(call.meta, "shape"):  # the values or indices of a maximum, a sort
        names = type(call.node.args[0].meta["value"]).__match_args__  # type: ignore[union-attr]
        return value[names.index(name)]
    return call.meta


@rule("size")
def size(call: Call, value: Value, dim: int | None = None) -> Any:
    """`x.size()` and `x.size(i)`."""
    sizes = tuple(map(Extent.of, value.axes))
    return sizes if dim is None else sizes[int(plain(dim))]


@rule("numel", "nelement", torch.numel)
def number_of_entries(call: Call, value: Value) -> Extent:
    """A product of all sizes."""
    return Extent(call.meta, value.axes)


@rule("dim", "ndimension", "is_floating_point", "is_complex", "get_device", "element_size", "is_signed")
def plain_fact(call: Call, value: Value, *args: Any) -> Any:
    """Facts that no growth changes."""
    return call.meta


@rule(len)
def count(call: Call, parts: Any) -> Any:
    """The number of parts of a tensor, which no growth changes."""
    return call.meta


@rule(require_form)
def fixed_form(call: Call, value: Any, form: str, name: str, assumed: Any = None) -> None:
    """The check of an input that is a container: its tensors are read one by one."""


@rule(require_decision)
def decision(call: Call, value: Any, decided: Any, line: str) -> None:
    """The check of what a model decides by sizes: it says nothing of axes, and goes when one of those sizes grows."""


@rule(require_values)
def decision_by_values(call: Call, value: Value, decided: Any, line: str) -> None:
    """The check of what a model decides by numbers that it makes of sizes and buffers: no other numbers will do."""
    call.freeze(value.axes, "the model decides by its values")


@rule(require_admitted)
def admission(call: Call, value: Value | Derived, admitted: bool, line: str, refusal: str) -> None:
    """The check of values that the model refuses: of one truth, without axes, or of a number, as sizes have made it."""
    sizes = value.axes if isinstance(value, Value) else value.terms
    call.freeze(sizes, "the model decides by its values")


@rule(require_dtypes)
def decision_by_dtypes(call: Call, value: Any, decided: Any, line: str) -> None:
    """The check of what a model decides by dtypes, which no growth changes."""


@rule(require_same)
def fixed_input(call: Call, value: Any, captured: Any, name: str) -> None:
    """The check of an input that the graph was specialised to: no tensor, no axes."""


@rule(OneMode)
def fixed_mode(call: Call) -> None:
    """The check of the mode: no tensor, no axes."""


@rule(require_sizes)
def fixed_sizes(call: Call, value: Value, sizes: Any, name: str) -> None:
    """The check of an input's sizes, which follow where a pass lets the input grow."""
    for i, (size, term) in enumerate(zip(sizes, value.axes, strict=True)):
        if size is not None:
            call.literal(("args", 1, i), term)
