"""Concatenation, stacking and splitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Concat, Term
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, RuleDeclined, meta_shape
from graphgrow.ops.registry import rule


@rule(torch.cat, torch.concat, torch.concatenate)
def cat(call: Call, tensors: Sequence[Value], dim: int = 0) -> Value:
    """One after the other along an axis; all other axes are the same.

    An empty tensor of one axis, as a cache is before its first use, joins whatever the others are.
    """
    empty = [value for value in tensors if len(value.axes) == 1 and not value.axes[0].size]
    call.freeze((value.axes[0] for value in empty), "an axis that is empty")
    tensors = [value for value in tensors if value not in empty] or tensors
    index = call.axis(tensors[0], dim)
    first = tensors[0]
    for other in tensors[1:]:
        for i, (mine, theirs) in enumerate(zip(first.axes, other.axes, strict=True)):
            if i != index:
                call.same(mine, theirs)
    joined: Term = Concat(tuple(value.axes[index] for value in tensors)) if len(tensors) > 1 else first.axes[index]
    axes = (*first.axes[:index], joined, *first.axes[index + 1 :])
    along = fl.Stack(tuple(fl.Operand(value, (index,)) for value in tensors))
    across = fl.Choose(tuple(call.operand(value, drop=[index]) for value in tensors))
    return call.output(axes, fl.Along((joined,), along, across))


@rule(torch.hstack, torch.vstack, torch.dstack)
def stack_axis(call: Call, tensors: Sequence[Value]) -> Value:
    """Concatenation along the second, the first, the third axis of tensors that have one."""
    dim = {"hstack": 1, "vstack": 0, "dstack": 2}[call.name]
    if any(len(value.axes) < max(dim + 1, 2) for value in tensors):
        raise RuleDeclined("tensors of too few axes")
    return cat(call, tensors, dim)


@rule(torch.column_stack)
def columns(call: Call, tensors: Sequence[Value]) -> Value:
    """Vectors as columns of a matrix, or concatenation along the second axis."""
    if all(len(value.axes) == 1 for value in tensors):
        return stack(call, tensors, 1)
    if any(len(value.axes) < 2 for value in tensors):
        raise RuleDeclined("vectors and matrices")
    return cat(call, tensors, 1)


@rule(torch.stack)
def stack(call: Call, tensors: Sequence[Value], dim: int = 0) -> Value:
    """A new axis, indexed by position."""
    first = tensors[0]
    for other in tensors[1:]:
        for mine, theirs in zip(first.axes, other.axes, strict=True):
            call.same(mine, theirs)
    index = dim % (len(first.axes) + 1)
    new = call.fixed(len(tensors), "an axis that is stacked")
    axes = (*first.axes[:index], new, *first.axes[index:])
    return call.output(axes, fl.Choose(tuple(map(call.operand, tensors))))


def _parts(call: Call, input: Value, dim: int) -> tuple[Value, ...]:
    index = call.axis(input, dim)
    sizes = [meta_shape(part)[index] for part in call.meta]
    spaces = [call.space(size) for size in sizes]
    whole: Term = Concat(tuple(spaces)) if len(spaces) > 1 else spaces[0]
    call.same(input.axes[index], whole, "a split that cuts across its axis")
    call.facts.split_parts, call.facts.split_axis = tuple(spaces), index
    call.cut(input.axes[index], spaces)
    outputs = []
    for i, space in enumerate(spaces):
        axes = (*input.axes[:index], space, *input.axes[index + 1 :])
        sliced = fl.Slice(fl.Operand(input, (index,)), tuple(spaces[:i]), space)
        across = fl.Same(call.operand(input, drop=[index]))
        outputs.append(call.output(axes, fl.Along((whole,), sliced, across), index=i))
    return tuple(outputs)


@rule(torch.chunk, "chunk")
def chunk(call: Call, input: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    """Equal parts."""
    return _parts(call, input, dim)


@rule(torch.split, "split")
def split(
    call: Call, input: Value, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None
) -> tuple[Value, ...]:
    """Parts of given sizes; the method calls them `split_size`."""
    return _parts(call, input, dim)


@rule(torch.hsplit, "hsplit", torch.vsplit, "vsplit", torch.dsplit, "dsplit")
def split_axis(call: Call, input: Value, *parts: Any, **named: Any) -> tuple[Value, ...]:
    """Parts along the second axis (of a vector its only one), the first, or the third."""
    dim = {"hsplit": min(1, len(input.axes) - 1), "vsplit": 0, "dsplit": 2}[call.name]
    return _parts(call, input, dim)


@rule(torch.tensor_split, "tensor_split")
def tensor_split(
    call: Call,
    input: Value,
    indices_or_sections: Any = None,
    dim: int = 0,
    *,
    indices: Any = None,
    sections: Any = None,
) -> tuple[Value, ...]:
    """So many parts, or parts that end at given places."""
    return _parts(call, input, dim)


@rule(torch.meshgrid)
def grid(call: Call, *tensors: Any, indexing: str | None = None) -> tuple[Value, ...]:
    """(n), (m), ... -> for each of them its entries laid out along a grid of all (n, m, ...)."""
    given: Sequence[Value] = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    axes = [value.axes[0] if value.axes else call.fixed(1, "an axis of size 1 that a view makes") for value in given]
    if indexing == "xy" and len(axes) > 1:
        axes[:2] = axes[1], axes[0]
    return tuple(call.output(axes, call.same_flow(value), index=i) for i, value in enumerate(given))
