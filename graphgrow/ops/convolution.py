"""Convolutions and transposed convolutions in one, two and three dimensions, grouped and depthwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Axes, Term, product
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.call import Call, meta_shape
from graphgrow.ops.registry import rule

Still = tuple[bool, ...]  # for each axis of a kernel, whether it does not move along it


@rule(F.conv1d, F.conv2d, F.conv3d)
def convolution(
    call: Call,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """(N, C, ...) with weight (O, C / groups, kernel...) -> (N, O, ...)."""
    return _function(call, input, weight, bias, int(groups), _still(weight, stride, padding), transposed=False)


@rule(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def transposed(
    call: Call,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """(N, C, ...) with weight (C, O / groups, kernel...) -> (N, O, ...)."""
    still = _still(weight, stride, padding, output_padding)
    return _function(call, input, weight, bias, int(groups), still, transposed=True)


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution_module(call: Call, input: Value) -> Value:
    """nn.Conv1d, nn.Conv2d, nn.Conv3d."""
    return _module(call, input, transposed=False)


@rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_module(call: Call, input: Value, output_size: Any = None) -> Value:
    """nn.ConvTranspose1d and its kin: weight (C, O / groups, kernel...); of `output_size`, positions alone count."""
    return _module(call, input, transposed=True)


def _function(
    call: Call, input: Value, weight: Value, bias: Value | None, groups: int, still: Still, transposed: bool
) -> Value:
    if groups > 1:
        term = _groups_term(call, input, groups, len(weight.axes) - 2)
        call.literal(call.argument_path(6, "groups"), term)  # the seventh argument of both kinds
    return _convolve(call, input, weight, bias, groups, still, transposed)


def _module(call: Call, input: Value, transposed: bool) -> Value:
    module = cast(nn.Conv2d, call.module)  # all six classes have the same fields
    weight = call.weight("weight")
    bias = call.parameter("bias", Fresh.ZEROS)
    still = _still(weight, module.stride, module.padding, module.output_padding)
    output = _convolve(call, input, weight, bias, module.groups, still, transposed)
    channel = len(weight.axes) - 2
    call.attribute("in_channels", input.axes[-channel - 1])
    call.attribute("out_channels", output.axes[-channel - 1])
    if module.groups > 1:
        call.attribute("groups", _groups_term(call, input, module.groups, channel))
    return output


def _groups_term(call: Call, input: Value, groups: int, spatial: int) -> Term:
    """The axis of groups within the input's channels, which stand in front of the spatial axes."""
    channels = input.axes[-spatial - 1]
    if channels.size == groups:
        return channels
    return call.factor(channels, (groups, channels.size // groups), ("groups", "group_width"))[0]


def _convolve(
    call: Call, input: Value, weight: Value, bias: Value | None, groups: int, still: Still, transposed: bool
) -> Value:
    spatial = len(weight.axes) - 2
    channel = len(input.axes) - spatial - 1
    call.starts(weight, Fresh.HE, fan=((0,) if transposed else (1,)) + tuple(range(2, 2 + spatial)))
    call.starts_bias(bias, weight)
    call.freeze(weight.axes[2:], "the size of a kernel")
    if groups == 1:
        reading, writing = (0, 1) if transposed else (1, 0)
        call.contract(input, channel, weight, reading)
        outputs: Term = weight.axes[writing]
        flow: fl.Flow = fl.Mul((call.operand(input, drop=[channel]), call.operand(weight, drop=[reading])))
    else:
        outputs, inner = _grouped(call, input, channel, weight, groups, transposed)
        # the sum runs within each group, so the axis of groups itself reaches the output
        flow = fl.Mul((call.operand(input), call.operand(weight, drop=[] if transposed else [1])))
        if inner is not None:  # where what is summed over is written too, the rows of the weight alone say how
            flow = fl.Along((inner,), fl.Operand(weight, (1 if transposed else 0,)), flow)
    if bias is not None:
        call.same(outputs, bias.axes[0])
    shape = meta_shape(call.meta)[channel + 1 :]
    axes: Axes = (*input.axes[:channel], outputs, *_spatial(call, input.axes[channel + 1 :], tuple(shape), still))
    return call.output(axes, call.plus_bias(flow, bias))


def _grouped(
    call: Call, input: Value, channel: int, weight: Value, groups: int, transposed: bool
) -> tuple[Term, Term | None]:
    """Relate the channels of a grouped convolution; returns the output channels and what is summed over in a group."""
    group = _groups_term(call, input, groups, len(input.axes) - channel - 1)
    width = input.axes[channel].size // groups
    if transposed:
        return _grouped_transposed(call, input, channel, weight, group, width)
    outputs = weight.axes[0]
    per_group = outputs.size // groups
    if per_group == 1:
        call.same(outputs, group)
    else:
        call.same(outputs, product((group, call.space(per_group, "group_width"))))
    if width == 1:
        call.freeze([weight.axes[1]], "one input channel in each group")
        return outputs, None
    inner = call.factor(input.axes[channel], (groups, width), ("groups", "group_width"))[1]
    call.contract(input, channel, weight, 1, term=inner)
    return outputs, inner


def _grouped_transposed(
    call: Call, input: Value, channel: int, weight: Value, group: Term, width: int
) -> tuple[Term, Term | None]:
    """Weight (groups x width, rows, kernel...): the sum runs over the width, each group by itself."""
    call.same(weight.axes[0], input.axes[channel])
    rows: Term = weight.axes[1]
    if rows.size > 1:
        outputs = product((group, rows))
    else:
        call.freeze([rows], "one output channel in each group")
        outputs = group
    if width == 1:
        return outputs, None
    inner = call.factor(input.axes[channel], (group.size, width), ("groups", "group_width"))[1]
    call.contract_within(input, channel, weight, 0, inner)
    return outputs, inner


def _still(weight: Value, stride: Any, padding: Any, output_padding: Any = 0) -> Still:
    """Along which of its axes a kernel does not move: it has size 1 there, with neither stride nor padding."""
    kernel = weight.axes[2:]
    padding = 0 if isinstance(padding, str) else padding  # "same" and "valid" are none for a kernel of size 1
    steps, *rings = (_each(setting, len(kernel)) for setting in (stride, padding, output_padding))
    return tuple(
        axis.size == 1 and step == 1 and not any(ring) for axis, step, *ring in zip(kernel, steps, *rings, strict=True)
    )


def _each(setting: Any, count: int) -> tuple[int, ...]:
    """A setting of a convolution for each axis of its kernel; one number stands for all."""
    if not isinstance(setting, Sequence):
        return (int(setting),) * count
    return tuple(map(int, setting)) * (count if len(setting) == 1 else 1)


def _spatial(call: Call, before: Axes, after: tuple[int, ...], still: Still) -> list[Term]:
    """The positions of the output; where the kernel moves along them they cannot grow."""
    reason = "positions that a kernel moves along"
    call.freeze([term for term, stays in zip(before, still, strict=True) if not stays], reason)
    rows = zip(before, after, still, strict=True)
    return [term if stays else call.fixed(size, reason) for term, size, stays in rows]
