"""Pooling, interpolation and padding: maps along positions, each channel alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import Value
from graphgrow.ops.call import Call, RuleDeclined, meta_shape, plain
from graphgrow.ops.registry import rule


def _move(call: Call, input: Value, flow: fl.Flow, first: int = 2) -> Value:
    """An output whose axes from `first` on are new positions."""
    shape = meta_shape(call.meta)
    if len(shape) != len(input.axes):
        raise RuleDeclined("an output of another rank")
    call.freeze(input.axes[first:], "positions that are pooled")
    moved = [call.fixed(size, "positions that are pooled") for size in shape[first:]]
    return call.output((*input.axes[:first], *moved), flow)


@rule(
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    torch.avg_pool1d, torch.adaptive_avg_pool1d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate,
)  # fmt: skip
def average_pool(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Linear along positions."""
    return _move(call, input, call.same_flow(input), first=_first_position(call, input))


@rule(
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    F.max_pool1d, F.max_pool2d, F.max_pool3d,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
)  # fmt: skip
def max_pool(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """The largest of each window."""
    return _move(
        call, input, fl.Pointwise((call.operand(input),), zero=True), first=_first_position(call, input)
    )


def _first_position(call: Call, input: Value) -> int:
    """Where positions start: behind the batch and the channels."""
    if len(input.axes) < 3:
        raise RuleDeclined("an input without a batch axis")
    return 2


@rule(F.pad, torch.nn.ConstantPad1d, torch.nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ReflectionPad2d,
      nn.ReplicationPad2d, nn.ReflectionPad1d, nn.ReplicationPad1d)  # fmt: skip
def pad(call: Call, input: Value, pad: Sequence[int] | None = None, *args: Any, **kwargs: Any) -> Value:
    """Padded axes have new positions; the others are left alone."""
    shape = meta_shape(call.meta)
    if pad is not None and call.module is None:
        touched = {len(input.axes) - 1 - i // 2 for i, amount in enumerate(pad) if plain(amount)}
    else:
        touched = {i for i, term in enumerate(input.axes) if i >= 2 or term.size != shape[i]}
    call.freeze((input.axes[i] for i in touched), "an axis that is padded")
    axes = [
        call.fixed(shape[i], "an axis that is padded") if i in touched else term for i, term in enumerate(input.axes)
    ]
    return call.output(axes, fl.Pointwise((call.operand(input),), zero=True))
