"""New tensors of constants: from sizes, or after the pattern of another tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import Derived, Extent
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, RuleDeclined, meta_shape, plain
from graphgrow.ops.registry import rule


@rule(torch.zeros_like)
def zeros_like(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Zeros with the axes of another tensor, whatever those grow to."""
    return call.output(input.axes, fl.Zeros())


@rule(torch.ones_like)
def ones_like(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Ones with the axes of another tensor: one value for all units."""
    return call.output(input.axes, fl.Pointwise((fl.Operand(input, ()),)))


@rule(torch.full_like)
def full_like(call: Call, input: Value, fill_value: Any, *args: Any, **kwargs: Any) -> Value:
    """One number with the axes of another tensor."""
    return ones_like(call, input)


@rule("fill_", torch.fill)
def filled(call: Call, input: Value, value: Any) -> Value:
    """One number with the axes of another tensor, which may be an entry of a tensor."""
    given = (call.operand(value),) if isinstance(value, Value) else ()
    return call.output(input.axes, fl.Pointwise((fl.Operand(input, ()), *given)))


@rule("zero_")
def emptied(call: Call, input: Value) -> Value:
    """Zeros in the place of what was there."""
    return zeros_like(call, input)


@rule("new_tensor")
def constant_beside(call: Call, input: Value, data: Any, **kwargs: Any) -> Value:
    """Numbers of the source, as a tensor of another's dtype and device."""
    return constant(call, data)


@rule(torch.tensor)
def constant(call: Call, data: Any, **kwargs: Any) -> Value:
    """Numbers of the source and of sizes, which stay what they were when those grow: `torch.tensor(x.size(-1))`."""
    if any(isinstance(item, Value) for item in pytree.tree_leaves(data)):
        raise RuleDeclined("made from tensors")
    return call.output((call.fixed(size, "a constant") for size in meta_shape(call.meta)), fl.Pointwise(()))


@rule(torch.zeros, "new_zeros")
def zeros(call: Call, *sizes: Any, size: Any = None, **kwargs: Any) -> Value:
    """Zeros of given sizes: states that start empty, sums that start at nothing."""
    return call.output(sized_axes(call, sizes, size), fl.Zeros())


@rule(torch.ones, "new_ones")
def ones(call: Call, *sizes: Any, size: Any = None, **kwargs: Any) -> Value:
    """Ones of given sizes."""
    return call.output(sized_axes(call, sizes, size), fl.Pointwise(()))


@rule(torch.linspace)
def evenly_spaced(call: Call, start: Any, end: Any, steps: Any, **kwargs: Any) -> Value:
    """Numbers from one to another, in equal steps."""
    sized = [item for item in (start, end, steps) if isinstance(item, (Extent, Derived))]
    call.freeze([term for item in sized for term in item.terms], "its size is read to make a new tensor")
    return call.output([call.fixed(size, "places in even steps") for size in meta_shape(call.meta)], fl.Pointwise(()))


@rule(torch.full, "new_full")
def full(call: Call, *arguments: Any, size: Any = None, fill_value: Any = None, **kwargs: Any) -> Value:
    """One number in given sizes."""
    if isinstance(fill_value, Value) or any(isinstance(item, Value) for item in arguments[1:]):
        raise RuleDeclined("filled with a tensor")
    pattern = arguments[:1] if isinstance(call.node.target, str) else ()
    return call.output(sized_axes(call, (*pattern, *arguments[len(pattern) :][:1]), size), fl.Pointwise(()))


def sized_axes(
    call: Call, arguments: tuple[Any, ...], by_name: Any, path: tuple[Any, ...] = ("kwargs", "size")
) -> list[Term]:
    """The axes of the new tensor; of another tensor, given first to a method, it takes dtype and device alone."""
    first = 1 if isinstance(call.node.target, str) else 0
    sizes = arguments[first:] if by_name is None else (by_name,)
    shape = meta_shape(call.meta)
    whole = len(sizes) == 1 and isinstance(sizes[0], (tuple, list))
    items: Sequence[Any] = sizes[0] if whole else sizes
    if len(items) != len(shape):
        raise RuleDeclined("sizes in a form that is not known")
    at: tuple[Any, ...] = ("args", first) if by_name is None else path
    paths = [(*at, i) if whole else ("args", first + i) for i in range(len(items))]
    return [sized_axis(call, item, size, path) for item, size, path in zip(items, shape, paths, strict=True)]


def sized_axis(call: Call, item: Any, size: int, path: tuple[Any, ...]) -> Term:
    """The axis of a size that is given as a number: the one that it was read off, else a new one that restates it."""
    if isinstance(item, Extent) and len(item.terms) == 1 and item.terms[0].size == size:
        call.literal(path, item.terms[0])
        return item.terms[0]
    if size <= 1 and isinstance(plain(item), int):
        return call.fixed(size, "an axis of size 1 that is made")
    axis = call.space(size)
    call.literal(path, axis)
    return axis
