"""Writing into a part of a tensor."""

from __future__ import annotations

from typing import Any

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.layers import set_item
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined
from graphgrow.ops.registry import rule


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
