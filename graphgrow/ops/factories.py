"""New tensors of constants or noise, made after the pattern of another."""

from __future__ import annotations

from typing import Any

import torch

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, meta_shape
from graphgrow.ops.registry import rule


@rule(torch.zeros_like, torch.ones_like, torch.full_like)
def constant_like(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """One number for all units, with the axes of another tensor."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule("new_zeros", "new_ones", "new_full")
def constant(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """A tensor of given sizes; of the other it takes dtype and device alone."""
    return call.output(call.fixed(size, "a tensor made from sizes") for size in meta_shape(call.meta))
