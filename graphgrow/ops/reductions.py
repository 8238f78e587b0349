"""Sums, means, softmax and the like along axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Term
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call
from graphgrow.ops.registry import rule


def _dims(call: Call, input: Value, dim: Any) -> list[int]:
    if dim is None:
        return list(range(len(input.axes)))
    return [call.axis(input, d) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]


def _reduced(call: Call, input: Value, dims: Sequence[int], keepdim: bool) -> list[Term]:
    kept: list[Term] = []
    for i, term in enumerate(input.axes):
        if i not in dims:
            kept.append(term)
        elif keepdim:
            kept.append(call.fixed(1, "an axis of size 1 that a reduction leaves"))
    return kept


def _dims_or_flag(dim: Any, dtype: Any) -> Any:
    return None if isinstance(dim, torch.dtype) else dim


@rule(torch.mean, "mean")
def mean(call: Call, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    """The mean over axes, which new units would change."""
    dims = _dims(call, input, _dims_or_flag(dim, dtype))
    call.freeze((input.axes[i] for i in dims), "averaged over")
    return call.output(_reduced(call, input, dims, keepdim), fl.Same(call.operand(input, drop=dims)))


@rule(torch.sum, "sum")
def total(call: Call, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    """The sum over axes: new units must be zero, copies must be shares."""
    dims = _dims(call, input, _dims_or_flag(dim, dtype))
    for i in dims:
        call.sum_over(input, i)
    return call.output(_reduced(call, input, dims, keepdim), fl.Same(call.operand(input, drop=dims)))


@rule(torch.amax, torch.amin, "amax", "amin", torch.var, torch.std, "var", "std")
def statistic(call: Call, input: Value, dim: Any = None, *args: Any, keepdim: bool = False, **kwargs: Any) -> Value:
    """A statistic over axes."""
    dims = _dims(call, input, dim)
    call.freeze((input.axes[i] for i in dims), "reduced over")
    flow = fl.Pointwise((call.operand(input, drop=dims),))
    return call.output(_reduced(call, input, dims, keepdim), flow)


@rule(torch.norm, "norm")
def norm(
    call: Call, input: Value, p: Any = "fro", dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    """A p-norm over axes."""
    return statistic(call, input, dim, keepdim=keepdim)


@rule(nn.Softmax, nn.LogSoftmax, nn.Softmin, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax",
      "log_softmax")  # fmt: skip
def softmax(call: Call, input: Value, dim: int | None = None, *args: Any, **kwargs: Any) -> Value:
    """Each unit of the axis depends on all the others."""
    chosen = getattr(call.module, "dim", None) if call.module is not None else dim
    if chosen is None:
        chosen = 0 if len(input.axes) in (0, 1, 3) else 1  # torch's deprecated implicit choice
    call.freeze([input.axes[call.axis(input, chosen)]], "a softmax over it")
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(torch.cumsum, "cumsum", torch.cumprod, "cumprod", torch.flip, "flip")
def along(call: Call, input: Value, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Each position of the axis depends on the others, or on its place."""
    dims = call.node.kwargs.get("dims", dim)
    call.freeze((input.axes[i] for i in _dims(call, input, dims)), "an axis whose order counts")
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(torch.argmax, torch.argmin, "argmax", "argmin")
def index_of_extreme(call: Call, input: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """Where the extreme lies."""
    dims = _dims(call, input, dim)
    call.freeze((input.axes[i] for i in dims), "searched by position")
    flow = fl.Pointwise((call.operand(input, drop=dims),))
    return call.output(_reduced(call, input, dims, keepdim), flow)
