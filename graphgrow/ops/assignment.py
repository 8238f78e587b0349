"""Writing into a tensor, or into a part of it."""

from __future__ import annotations

from typing import Any

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.layers import CopyInOneMode, set_item, store_
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined
from graphgrow.ops.registry import rule


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
        raise RuleDeclined("written into by a tensor of indices")
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
            if isinstance(item, slice) and (item.start, item.stop, item.step) == (None, None, None):
                part.append(term)
                continue
            call.freeze([term], "written into by position")
            if isinstance(item, slice):
                size = len(range(*item.indices(term.size)))
                part.append(call.fixed(size, "written into by position"))
    part.extend(input.axes[source:])
    if not isinstance(value, Value):
        return call.output(input.axes, fl.Choose((call.operand(input), fl.Operand(input, ()))))
    if len(value.axes) > len(part):
        raise RuleDeclined("what is written has more axes than the place")
    align(call, [tuple(part), value.axes])
    return call.output(input.axes, fl.Choose((call.operand(input), call.operand(value))))
