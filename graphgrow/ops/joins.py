"""Concatenation, stacking, splitting and indexing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Concat, Term
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, RuleDeclined, meta_shape, plain
from graphgrow.ops.registry import rule


@rule(torch.cat, torch.concat)
def cat(call: Call, tensors: Sequence[Value], dim: int = 0, axis: int | None = None) -> Value:
    """One after the other along an axis; all other axes are the same."""
    index = call.axis(tensors[0], dim if axis is None else axis)
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


@rule(torch.split, "split", torch.tensor_split, "tensor_split")
def split(call: Call, input: Value, split_size_or_sections: Any, dim: int = 0) -> tuple[Value, ...]:
    """Parts of given sizes."""
    return _parts(call, input, dim)


@rule(torch.unbind, "unbind")
def unbind(call: Call, input: Value, dim: int = 0) -> tuple[Value, ...]:
    """Each position of an axis by itself."""
    index = call.axis(input, dim)
    call.freeze([input.axes[index]], "indexed by position")
    axes = (*input.axes[:index], *input.axes[index + 1 :])
    flow = fl.Same(call.operand(input, drop=[index]))
    return tuple(call.output(axes, flow, index=i) for i in range(input.axes[index].size))


@rule(torch.select, "select")
def select(call: Call, input: Value, dim: int, index: Any) -> Value:
    """One position of an axis."""
    at = call.axis(input, dim)
    call.freeze([input.axes[at]], "indexed by position")
    return call.output((*input.axes[:at], *input.axes[at + 1 :]), fl.Same(call.operand(input, drop=[at])))


@rule(operator.getitem)
def getitem(call: Call, container: Any, index: Any) -> Any:
    """An item of a tuple, or basic indexing of a tensor."""
    if not isinstance(container, Value):
        return container[plain(index)] if not isinstance(container, dict) else container[index]
    items = index if isinstance(index, tuple) else (index,)
    if len(items) == 1 and isinstance(items[0], Value) and container.axes:
        return _looked_up(call, container, items[0])
    if any(isinstance(item, (Value, list)) for item in items):
        raise RuleDeclined("indexed by a tensor")
    spare = len(container.axes) - sum(item is not None and item is not Ellipsis for item in items)
    shape = meta_shape(call.meta)
    axes: list[Term] = []
    dropped: set[int] = set()
    source = 0
    for item in items:
        if item is Ellipsis:
            axes.extend(container.axes[source : source + spare])
            source += spare
        elif item is None:
            axes.append(call.fixed(1, "an axis of size 1 that a view makes"))
        elif isinstance(item, slice):
            axes.append(_sliced(call, container.axes[source], item, shape[len(axes)]))
            source += 1
        else:
            call.freeze([container.axes[source]], "indexed by position")
            dropped.add(source)
            source += 1
    axes.extend(container.axes[source:])
    return call.output(axes, fl.Same(call.operand(container, drop=dropped)))


def _looked_up(call: Call, table: Value, index: Value) -> Value:
    """table[index]: rows looked up by whole numbers."""
    call.freeze([table.axes[0]], "a table that is indexed by position")
    axes = (*index.axes, *table.axes[1:])
    if len(axes) != len(meta_shape(call.meta)):
        raise RuleDeclined("indexed by a mask")
    rows = fl.Same(call.operand(table, drop=[0]))
    return call.output(axes, fl.Along(index.axes, call.operand(index), rows))


def _sliced(call: Call, term: Term, item: slice, size: int) -> Term:
    if item.start in (None, 0) and item.step in (None, 1) and item.stop is None:
        return term
    call.freeze([term], "sliced by position")
    return call.fixed(size, "sliced by position")


@rule(torch.roll, "roll")
def roll(call: Call, input: Value, shifts: Any, dims: Any = None) -> Value:
    """Positions moved around."""
    indices = range(len(input.axes)) if dims is None else (dims if isinstance(dims, (tuple, list)) else (dims,))
    call.freeze((input.axes[call.axis(input, i)] for i in indices), "rolled by position")
    return call.output(input.axes, call.same_flow(input))
