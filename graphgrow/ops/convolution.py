"""Convolutions and transposed convolutions in one, two and three dimensions, grouped and depthwise."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.terms import Axes, Term, product
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.call import Call, meta_shape
from graphgrow.ops.registry import rule


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
    return _function(call, input, weight, bias, int(groups), transposed=False)


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
    return _function(call, input, weight, bias, int(groups), transposed=True)


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution_module(call: Call, input: Value) -> Value:
    """nn.Conv1d, nn.Conv2d, nn.Conv3d."""
    return _module(call, input, transposed=False)


@rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_module(call: Call, input: Value) -> Value:
    """nn.ConvTranspose1d and its kin: weight (C, O / groups, kernel...)."""
    return _module(call, input, transposed=True)


def _function(call: Call, input: Value, weight: Value, bias: Value | None, groups: int, transposed: bool) -> Value:
    if groups > 1:
        term = _groups_term(call, input, groups, len(weight.axes) - 2)
        call.literal(call.argument_path(6, "groups"), term)  # the seventh argument of both kinds
    return _convolve(call, input, weight, bias, groups, transposed)


def _module(call: Call, input: Value, transposed: bool) -> Value:
    module = cast(nn.Conv2d, call.module)  # all six classes have the same fields
    weight = call.weight("weight")
    bias = call.parameter("bias", Fresh.ZEROS)
    output = _convolve(call, input, weight, bias, module.groups, transposed)
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


def _convolve(call: Call, input: Value, weight: Value, bias: Value | None, groups: int, transposed: bool) -> Value:
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
    axes: Axes = (*input.axes[:channel], outputs, *_spatial(call, input.axes[channel + 1 :], tuple(shape)))
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


def _spatial(call: Call, before: Axes, after: tuple[int, ...]) -> list[Term]:
    """The positions of the output: never growable, since the kernel moves along them."""
    call.freeze(before, "positions that a kernel moves along")
    return [call.fixed(size, "positions that a kernel moves along") for size in after]
