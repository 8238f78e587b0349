"""Pooling, interpolation and padding: maps along positions, each channel alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, RuleDeclined, meta_shape, plain
from graphgrow.ops.registry import rule


def _move(call: Call, input: Value, flow: fl.Flow, first: int) -> Value:
    """An output whose axes from `first` on are new positions."""
    shape = meta_shape(call.meta)
    if len(shape) != len(input.axes):
        raise RuleDeclined("an output of another rank")
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


@rule(*_AVERAGES)
def average_pool(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Linear along positions."""
    return _move(call, input, call.same_flow(input), _first_position(call, input, _AVERAGES))


@rule(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate)
def interpolate(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Linear along positions, which stand behind the batch and the channels."""
    return _move(call, input, call.same_flow(input), 2)


@rule(*_MAXIMA)
def max_pool(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """The largest of each window."""
    flow = fl.Pointwise((call.operand(input),), zero=True)
    return _move(call, input, flow, _first_position(call, input, _MAXIMA))


def _first_position(call: Call, input: Value, ranks: dict[object, int]) -> int:
    """Where positions start: they are the last axes, behind the channels and the batch, if there is one."""
    return len(input.axes) - ranks[call.node.target if call.module is None else type(call.module)]


@rule(F.pad, torch.nn.ConstantPad1d, torch.nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ReflectionPad2d,
      nn.ReplicationPad2d, nn.ReflectionPad1d, nn.ReplicationPad1d)  # fmt: skip
def pad(call: Call, input: Value, pad: Sequence[int] | None = None, mode: str = "constant", value: Any = None) -> Value:
    """Padded axes have new positions; the others are left alone."""
    shape = meta_shape(call.meta)
    if call.module is not None:
        pad, value = cast(nn.ConstantPad2d, call.module).padding, getattr(call.module, "value", None)
    touched = {len(input.axes) - 1 - i // 2 for i, amount in enumerate(pad or ()) if plain(amount)}
    call.freeze((input.axes[i] for i in touched), "an axis that is padded")
    axes = [
        call.fixed(shape[i], "an axis that is padded") if i in touched else term for i, term in enumerate(input.axes)
    ]
    return call.output(axes, fl.Pointwise((call.operand(input),), zero=not plain(value)))
