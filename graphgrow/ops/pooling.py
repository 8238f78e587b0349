"""Pooling and interpolation: maps along positions, each channel alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import product
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, RuleDeclined, meta_shape
from graphgrow.ops.registry import rule


def _move(call: Call, input: Value, flow: fl.Flow, first: int) -> Value:
    """An output whose axes from `first` on are new positions."""
    shape = meta_shape(call.meta)
    call.freeze(input.axes[first:], "positions that are pooled")
    moved = [call.fixed(size, "positions that are pooled") for size in shape[first:]]
    return call.output((*input.axes[:first], *moved), flow)


# By operator, how many axes of positions it moves along.
_AVERAGES: dict[object, int] = {
    **dict.fromkeys((nn.AvgPool1d, nn.AdaptiveAvgPool1d, F.avg_pool1d, F.adaptive_avg_pool1d), 1),
    **dict.fromkeys((torch.avg_pool1d, torch.adaptive_avg_pool1d), 1),
    **dict.fromkeys((nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d), 2),
    **dict.fromkeys((nn.AvgPool3d, nn.AdaptiveAvgPool3d, F.avg_pool3d, F.adaptive_avg_pool3d), 3),
}
_MAXIMA: dict[object, int] = {
    **dict.fromkeys((nn.MaxPool1d, nn.AdaptiveMaxPool1d, F.max_pool1d, F.adaptive_max_pool1d, torch.max_pool1d), 1),
    **dict.fromkeys((nn.MaxPool2d, nn.AdaptiveMaxPool2d, F.max_pool2d, F.adaptive_max_pool2d, torch.max_pool2d), 2),
    **dict.fromkeys((nn.MaxPool3d, nn.AdaptiveMaxPool3d, F.max_pool3d, F.adaptive_max_pool3d, torch.max_pool3d), 3),
}
_WITH_PLACES: dict[object, int] = {  # what `return_indices=True` makes of the functions
    **dict.fromkeys((F.max_pool1d_with_indices, F.adaptive_max_pool1d_with_indices), 1),
    **dict.fromkeys((F.max_pool2d_with_indices, F.adaptive_max_pool2d_with_indices), 2),
    **dict.fromkeys((F.max_pool3d_with_indices, F.adaptive_max_pool3d_with_indices), 3),
}
_POWER_AVERAGES: dict[object, int] = {
    **dict.fromkeys((nn.LPPool1d, F.lp_pool1d), 1),
    **dict.fromkeys((nn.LPPool2d, F.lp_pool2d), 2),
    **dict.fromkeys((nn.LPPool3d, F.lp_pool3d), 3),
}
_UNPOOLED: dict[object, int] = {
    **dict.fromkeys((nn.MaxUnpool1d, F.max_unpool1d), 1),
    **dict.fromkeys((nn.MaxUnpool2d, F.max_unpool2d), 2),
    **dict.fromkeys((nn.MaxUnpool3d, F.max_unpool3d), 3),
}


@rule(*_AVERAGES)
def average_pool(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Linear along positions."""
    return _move(call, input, call.same_flow(input), _first_position(call, input, _AVERAGES))


@rule(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate,
      F.upsample, F.upsample_nearest, F.upsample_bilinear)  # fmt: skip
def interpolate(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Linear along positions, which stand behind the batch and the channels."""
    return _move(call, input, call.same_flow(input), 2)


@rule(*_MAXIMA, *_WITH_PLACES)
def max_pool(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value | tuple[Value, ...]:
    """The largest of each window, and where it lay, if that is asked for."""
    first = _first_position(call, input, _MAXIMA | _WITH_PLACES)
    flow = fl.Pointwise((call.operand(input),), zero=True)
    if not isinstance(call.meta, tuple):
        return _move(call, input, flow, first)
    call.freeze(input.axes[first:], "positions that are pooled")
    moved = [call.fixed(size, "positions that are pooled") for size in call.meta[0].shape[first:]]
    axes = (*input.axes[:first], *moved)
    return call.output(axes, flow, index=0), call.output(axes, fl.Pointwise((call.operand(input),)), index=1)


@rule(*_POWER_AVERAGES)
def power_average_pool(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """A root of the sum of powers in each window, which has no slope where that is zero, and may be of less."""
    first = _first_position(call, input, _POWER_AVERAGES)
    return _move(call, input, fl.Pointwise((call.operand(input),), zero=True, total=False), first)


@rule(*_UNPOOLED)
def max_unpool(call: Call, input: Value, indices: Value, *args: Any, **kwargs: Any) -> Value:
    """Values put back where they lay: linear in the values, each channel alone."""
    first = _first_position(call, input, _UNPOOLED)
    for mine, theirs in zip(input.axes, indices.axes, strict=True):
        call.same(mine, theirs)
    positions = range(first, len(input.axes))
    places = fl.Pointwise((call.operand(indices, drop=positions),))
    return _move(call, input, fl.Mul((call.operand(input, drop=positions), places)), first)


def _first_position(call: Call, input: Value, ranks: dict[object, int]) -> int:
    """Where positions start: they are the last axes, behind the channels and the batch, if there is one."""
    return len(input.axes) - ranks[call.node.target if call.module is None else type(call.module)]


@rule(nn.Unfold, F.unfold)
def unfold(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """(N, C, H, W) -> (N, C kernel, L): the windows of each channel."""
    shape = meta_shape(call.meta)
    if len(input.axes) != 4:
        raise RuleDeclined("an input without a batch axis")
    call.freeze(input.axes[2:], "positions that a window moves along")
    places = call.fixed(shape[1] // input.axes[1].size, "places of a window")
    windows = call.fixed(shape[2], "positions that a window moves along")
    axes = (input.axes[0], product((input.axes[1], places)), windows)
    return call.output(axes, fl.Same(call.operand(input, drop=[2, 3])))


@rule(nn.Fold, F.fold)
def fold(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """(N, C kernel, L) -> (N, C, H, W): windows added up where they lie."""
    shape = meta_shape(call.meta)
    if len(input.axes) != 3:
        raise RuleDeclined("an input without a batch axis")
    call.freeze(input.axes[2:], "positions that a window moves along")
    channels = call.space(shape[1])
    places = call.fixed(input.axes[1].size // shape[1], "places of a window")
    call.same(input.axes[1], product((channels, places)), "a fold that cuts across its axes")
    positions = [call.fixed(size, "positions that a window moves along") for size in shape[2:]]
    return call.output((input.axes[0], channels, *positions), fl.Same(call.operand(input, drop=[2])))


@rule(F.grid_sample)
def grid_sample(call: Call, input: Value, grid: Value, *args: Any, **kwargs: Any) -> Value:
    """(N, C, ...) read at places that a grid names: linear in what is read, each channel alone."""
    call.same(input.axes[0], grid.axes[0])
    call.freeze((*input.axes[2:], *grid.axes[1:]), "places to read at")
    positions = [call.fixed(size, "places to read at") for size in meta_shape(call.meta)[2:]]
    read = call.operand(input, drop=range(2, len(input.axes)))
    places = fl.Pointwise((call.operand(grid, drop=range(1, len(grid.axes))),))
    return call.output((*input.axes[:2], *positions), fl.Mul((read, places)))


@rule(F.affine_grid)
def affine_grid(call: Call, theta: Value, size: Any, align_corners: Any = None) -> Value:
    """(N, 2, 3) -> (N, H, W, 2): places to read at, for which the channels in `size` do not count."""
    call.freeze(theta.axes[1:], "a map of places")
    call.literal((*call.argument_path(1, "size"), 0), theta.axes[0])
    places = [call.fixed(count, "places to read at") for count in meta_shape(call.meta)[1:]]
    return call.output((theta.axes[0], *places), fl.Same(call.operand(theta, drop=[1, 2])))
