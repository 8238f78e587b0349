"""What the values of tensors decide: the places that are not zero, a number that Python takes."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.ir.facts import Derived, Extent
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule

COUNTED = "as many as its values choose"


@rule(torch.nonzero, "nonzero")
def places(call: Call, input: Value, *, as_tuple: bool = False) -> Any:
    """The places of what is not zero, as many as there are."""
    call.freeze(input.axes, "looked through for what is not zero")
    if isinstance(call.meta, torch.Tensor):
        count, rank = call.meta.shape
        return call.output((call.fixed(count, COUNTED), call.fixed(rank, "one number for each axis")))
    counted = call.fixed(call.meta[0].shape[0], COUNTED)
    return tuple(call.output((counted,), index=i) for i in range(len(call.meta)))


@rule("item")
def number(call: Call, input: Value) -> Extent | Derived:
    """The one number of a tensor: another in each call."""
    call.freeze(input.axes, "its values are read")
    if isinstance(call.meta, int) and not isinstance(call.meta, bool) and call.meta > 0:
        return Extent.of(call.fixed(call.meta, COUNTED))
    return Derived(call.meta, (call.fixed(1, COUNTED),))
