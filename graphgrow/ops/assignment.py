"""Writing into a tensor, or into a part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.layers import CopyInOneMode, set_item, store_
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined, plain
from graphgrow.ops.registry import rule

_PLACES = "written into by position"


@rule("copy_")
def copying(call: Call, input: Value, src: Value, non_blocking: bool = False) -> Value:
    """Every entry of the input becomes that of the source, which is broadcast; a buffer keeps it for the next call."""
    align(call, [input.axes, src.axes])
    if input.parameter:
        call.stores(input, src)
    return call.output(input.axes, fl.Choose((call.operand(src),)))


@rule(store_)
def storing(call: Call, buffer: Value, value: Value) -> Value:
    """A buffer that keeps a value for the next call."""
    return copying(call, buffer, value)


@rule(CopyInOneMode)
def copying_in_one_mode(call: Call, buffer: Value, value: Value) -> Value:
    """A buffer that takes in a value, or stays as it is."""
    align(call, [buffer.axes, value.axes])
    if buffer.parameter:
        call.stores(buffer, value)
    return call.output(buffer.axes, fl.Choose((call.operand(buffer), call.operand(value))))


@rule(set_item)
def assignment(call: Call, input: Value, index: Any, value: Any) -> Value:
    """input[index] = value: axes that are written as a whole may grow, those that are indexed may not."""
    items = index if isinstance(index, tuple) else (index,)
    if any(isinstance(item, (Value, list)) for item in items):
        return _at_tensors(call, input, items, value)
    spare = len(input.axes) - sum(item is not None and item is not Ellipsis for item in items)
    part: list[Term] = []
    source = 0
    for item in items:
        if item is Ellipsis:
            part.extend(input.axes[source : source + spare])
            source += spare
        elif item is None:
            part.append(call.fixed(1, "an axis of size 1 that an index makes"))
        else:
            term = input.axes[source]
            source += 1
            if isinstance(item, slice):
                part.append(_written_part(call, term, item))
            else:
                call.freeze([term], _PLACES)
    part.extend(input.axes[source:])
    if not isinstance(value, Value):
        return call.output(input.axes, fl.Choose((call.operand(input), fl.Operand(input, ()))))
    if len(value.axes) > len(part):
        raise RuleDeclined("what is written has more axes than the place")
    align(call, [tuple(part), value.axes])
    return call.output(input.axes, fl.Choose((call.operand(input), call.operand(value))))


def _at_tensors(call: Call, input: Value, items: tuple[Any, ...], value: Any) -> Value:
    """input[:, rows, columns] = value: at places that tensors, or lists, of whole numbers name in a row of axes."""
    if any(item is None or (isinstance(item, list) and any(isinstance(i, Value) for i in item)) for item in items):
        raise RuleDeclined("written into by a list of tensors, or with a new axis beside tensors")
    if any(dtype in (torch.bool, torch.uint8) for dtype in _dtypes(call.node.args[1])):
        raise RuleDeclined("written into by a mask")
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    behind_it = items[at + 1 :]
    full = [*items[:at], *[slice(None)] * (len(input.axes) - at - len(behind_it)), *behind_it]
    named = [axis for axis, item in enumerate(full) if not isinstance(item, slice)]
    if named != list(range(named[0], named[-1] + 1)):
        raise RuleDeclined("written into by tensors of indices that have other axes between them")
    indices = [item for item in full if isinstance(item, Value)]
    found: Sequence[Term] = align(call, [item.axes for item in indices]) if indices else ()
    lists = [len(item) for item in full if isinstance(item, list)]
    if lists and not found:
        found = (call.fixed(max(lists), _PLACES),)
    kept = [
        _written_part(call, term, item) for term, item in zip(input.axes, full, strict=True) if isinstance(item, slice)
    ]
    call.freeze((*(input.axes[axis] for axis in named), *found), _PLACES)
    target = call.operand(input, drop=named)
    if not isinstance(value, Value):
        return call.output(input.axes, fl.Choose((target, fl.Operand(input, ()))))
    part = (*kept[: named[0]], *found, *kept[named[0] :])
    if len(value.axes) > len(part):
        raise RuleDeclined("what is written has more axes than the place")
    align(call, [part, value.axes])
    behind = len(part) - named[0]
    front = len(value.axes) - behind  # of the axes in front of the places, those that the value has
    places = range(max(front, 0), max(front + len(found), 0))
    return call.output(input.axes, fl.Choose((target, call.operand(value, drop=places))))


def _written_part(call: Call, term: Term, item: slice) -> Term:
    if (item.start, item.stop, item.step) == (None, None, None):
        return term
    call.freeze([term], _PLACES)
    return call.fixed(len(range(*slice(*map(plain, (item.start, item.stop, item.step))).indices(term.size))), _PLACES)


def _dtypes(index: Any) -> Iterator[Any]:
    """Of the tensors within an index, as they stand in the graph."""
    for item in index if isinstance(index, (tuple, list)) else (index,):
        if isinstance(item, fx.Node):
            yield getattr(item.meta["value"], "dtype", None)
