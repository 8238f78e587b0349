"""Sums, means, softmax and the like along axes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import StatisticKind
from graphgrow.ir.terms import Term, leaves
from graphgrow.ir.value import Value
from graphgrow.ops.broadcast import align
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
    """The mean over axes: new units must hold it, or leave the sum, which is then divided by the old count."""
    dims = _dims(call, input, _dims_or_flag(dim, dtype))
    output = call.output(_reduced(call, input, dims, keepdim), fl.Same(call.operand(input, drop=dims)))
    call.statistic(StatisticKind.MEAN, input, dims, output)
    if keepdim and len(dims) == 1:
        output.mean_of = (input, dims[0])
    return output


@rule(torch.sum, "sum", torch.nansum, "nansum")
def total(call: Call, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    """The sum over axes: new units must be zero, copies must be shares; of what is no number the shares are none."""
    dims = _dims(call, input, _dims_or_flag(dim, dtype))
    for i in dims:
        call.sum_over(input, i)
    return call.output(_reduced(call, input, dims, keepdim), fl.Same(call.operand(input, drop=dims)))


@rule(torch.amax, torch.amin, "amax", "amin")
def extreme(call: Call, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """The largest or smallest over axes, which copies do not change."""
    dims = _dims(call, input, dim)
    flow = fl.Pointwise((call.operand(input, drop=dims),), zero=True)
    output = call.output(_reduced(call, input, dims, keepdim), flow)
    call.statistic(StatisticKind.EXTREME, input, dims, output)
    output.above = (input,) if keepdim and call.name in ("amax", "max") else ()
    return output


@rule(torch.max, torch.min, "max", "min")
def extreme_and_place(call: Call, input: Value, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest or smallest of all, of two tensors, or along an axis together with its place."""
    if isinstance(dim, Value):
        operands = (call.operand(input), call.operand(dim))
        larger = call.output(align(call, [input.axes, dim.axes]), fl.Pointwise(operands, zero=True))
        larger.above = (input, dim) if call.name == "max" else ()
        return larger
    values = extreme(call, input, dim, keepdim)
    if dim is None:
        return values
    if not all(map(_reads_values, call.node.users)):
        call.freeze([input.axes[call.axis(input, dim)]], "searched by position")
    places = fl.Pointwise((call.operand(input, drop=[dim]),))
    return values, call.output(values.axes, places, index=1)


def _reads_values(reader: fx.Node) -> bool:
    """Whether a reader of a maximum takes its values, and not the places that they lay at."""
    return (reader.target, *reader.args[1:]) in ((operator.getitem, 0), (getattr, "values"))


@rule(torch.var, torch.std, "var", "std")
def spread(
    call: Call,
    input: Value,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = 1,
) -> Value:
    """The variance or standard deviation over axes."""
    kind = StatisticKind.VARIANCE if call.name == "var" else StatisticKind.DEVIATION
    return _spread(call, kind, input, dim, unbiased, keepdim, correction)[0]


@rule(torch.var_mean, torch.std_mean)
def spread_and_mean(
    call: Call,
    input: Value,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = 1,
) -> tuple[Value, Value]:
    """Variance (or standard deviation) and mean in one."""
    kind = StatisticKind.VARIANCE if call.node.target is torch.var_mean else StatisticKind.DEVIATION
    spread_out, dims = _spread(call, kind, input, dim, unbiased, keepdim, correction, index=0)
    mean_out = call.output(spread_out.axes, fl.Same(call.operand(input, drop=dims)), index=1)
    call.statistic(StatisticKind.MEAN, input, dims, mean_out)
    if keepdim and len(dims) == 1:
        mean_out.mean_of = (input, dims[0])
    return spread_out, mean_out


def _spread(
    call: Call,
    kind: StatisticKind,
    input: Value,
    dim: Any,
    unbiased: bool,
    keepdim: bool,
    correction: Any,
    index: int | None = None,
) -> tuple[Value, list[int]]:
    """A measure of spread, and the axes that it is taken over."""
    if isinstance(dim, bool):  # var(x, unbiased): over all axes
        dim, unbiased = None, dim
    dims = _dims(call, input, dim)
    varying = not input.constant and any(leaf.frozen for i in dims for leaf in leaves(input.axes[i]))
    if unbiased and correction and varying:
        call.freeze(
            (input.axes[i] for i in dims), "a spread with a correction by a count that varies from call to call"
        )
    axes, flow = _reduced(call, input, dims, keepdim), fl.Pointwise((call.operand(input, drop=dims),))
    output = call.output(axes, flow, index)
    call.statistic(kind, input, dims, output, float(correction if unbiased else 0))
    return output, dims


@rule(torch.norm, "norm", torch.linalg.norm, torch.linalg.vector_norm)
def norm(
    call: Call,
    input: Value,
    p: Any = "fro",
    dim: Any = None,
    keepdim: bool = False,
    out: None = None,
    dtype: Any = None,
    *,
    ord: Any = None,
) -> Value:
    """A p-norm over axes, which zeros do not change."""
    p = 2 if ord is None and p in (None, "fro") else (p if ord is None else ord)
    dims = _dims(call, input, dim)
    if not isinstance(p, (int, float)) or p <= 0:
        call.freeze((input.axes[i] for i in dims), f"a norm of order {p} over it")
    elif call.node.target is torch.linalg.norm and len(dims) > 1:
        call.freeze((input.axes[i] for i in dims), "a matrix norm over it")
    output = call.output(
        _reduced(call, input, dims, keepdim), fl.Pointwise((call.operand(input, drop=dims),), zero=True)
    )
    call.statistic(StatisticKind.NORM, input, dims, output, float(p) if isinstance(p, (int, float)) else 2.0)
    return output


@rule(torch.logsumexp, "logsumexp", torch.prod, "prod", torch.median, "median", torch.all, "all", torch.any, "any",
      torch.nanmedian, "nanmedian", torch.nanmean, "nanmean", torch.count_nonzero, "count_nonzero")  # fmt: skip
def of_all(call: Call, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Numbers that every unit of the axes has a part in; whether all are finite, new units do not change."""
    dims = _dims(call, input, dim)
    if not _asks_for_finite(call.node):
        call.freeze((input.axes[i] for i in dims), "reduced over")
    axes = _reduced(call, input, dims, keepdim)
    flow = fl.Pointwise((call.operand(input, drop=dims),))
    if isinstance(call.meta, torch.Tensor):
        return call.output(axes, flow)
    return tuple(call.output(axes, flow, index=i) for i in range(len(call.meta)))


_OF_THE_INFINITE = {"isnan", "isinf", "isposinf", "isneginf"}


def _asks_for_finite(node: fx.Node) -> bool:
    """Whether a node asks if any unit is not finite, or if all are: what a unit may be filled with always is."""
    before = next(iter(node.all_input_nodes), None)
    asked, by = (str(getattr(target, "__name__", target)) for target in (getattr(before, "target", ""), node.target))
    return (by == "any" and asked in _OF_THE_INFINITE) or (by == "all" and asked == "isfinite")


@rule(torch.mode, "mode")
def commonest(call: Call, input: Value, dim: int = -1, keepdim: bool = False) -> Any:
    """The commonest entry along an axis, and where it lies."""
    return of_all(call, input, dim, keepdim)


@rule(torch.quantile, "quantile", torch.nanquantile, "nanquantile")
def quantile(
    call: Call, input: Value, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Value:
    """A quantile along an axis, or several, which then are the first axis of the output."""
    dims = _dims(call, input, dim)
    call.freeze((input.axes[i] for i in dims), "reduced over")
    axes = _reduced(call, input, dims, keepdim)
    if isinstance(q, Value):
        call.freeze(q.axes, "quantiles by number")
        axes = [*q.axes, *axes]
    return call.output(axes, fl.Pointwise((call.operand(input, drop=dims),)))


@rule(torch.aminmax, "aminmax")
def extremes(call: Call, input: Value, *, dim: int | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    """The smallest and the largest along an axis, which copies do not change."""
    dims = _dims(call, input, dim)
    flow = fl.Pointwise((call.operand(input, drop=dims),), zero=True)
    axes = _reduced(call, input, dims, keepdim)
    least, most = (call.output(axes, flow, index=i) for i in range(2))
    for output in (least, most):
        call.statistic(StatisticKind.EXTREME, input, dims, output)
    return least, most


@rule(nn.Softmax, nn.LogSoftmax, nn.Softmin, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax",
      "log_softmax", F.softmin)  # fmt: skip
def softmax(call: Call, input: Value, dim: int | None = None, _stacklevel: Any = None, dtype: Any = None) -> Value:
    """Each unit of the axis depends on all the others."""
    chosen = getattr(call.module, "dim", None) if call.module is not None else dim
    if chosen is None:
        chosen = 0 if len(input.axes) in (0, 1, 3) else 1  # torch's deprecated implicit choice
    call.freeze([input.axes[call.axis(input, chosen)]], "a softmax over it")
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(nn.Softmax2d)
def softmax_over_channels(call: Call, input: Value) -> Value:
    """Over the third axis from behind, at each place of a map."""
    call.freeze([input.axes[-3]], "a softmax over it")
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(torch.argmax, torch.argmin, "argmax", "argmin")
def index_of_extreme(call: Call, input: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """Where the extreme lies."""
    dims = _dims(call, input, dim)
    call.freeze((input.axes[i] for i in dims), "searched by position")
    flow = fl.Pointwise((call.operand(input, drop=dims),))
    return call.output(_reduced(call, input, dims, keepdim), flow)
