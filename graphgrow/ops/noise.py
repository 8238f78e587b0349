"""Dropout and stochastic depth: noise in train mode, nothing in eval mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, plain
from graphgrow.ops.registry import rule


@rule(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
def dropout_module(call: Call, input: Value) -> Value:
    """Each element, or each channel, is dropped by itself."""
    call.noise(input, float(getattr(call.module, "p", 0.0)))
    return call.output(input.axes, call.same_flow(input))


@rule(nn.AlphaDropout, nn.FeatureAlphaDropout)
def alpha_dropout_module(call: Call, input: Value) -> Value:
    """What is dropped takes a value other than zero, and zeros do not stay zeros."""
    call.noise(input, float(getattr(call.module, "p", 0.0)))
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout)
def dropout(call: Call, input: Value, p: float = 0.5, training: Any = True, inplace: bool = False) -> Value:
    """Dropout whose mode is fixed in the model's source."""
    if training:
        call.noise(input, float(plain(p)))
    return call.output(input.axes, call.same_flow(input))


@rule("torchvision.ops.stochastic_depth.StochasticDepth", "timm.layers.drop.DropPath")
def stochastic_depth(call: Call, input: Value) -> Value:
    """Whole rows of the batch are dropped: one mask for all units, so copies share it."""
    mode = getattr(call.module, "mode", "row")
    if mode != "batch":
        call.freeze(input.axes if mode != "row" else input.axes[:1], f"stochastic depth of mode {mode!r}")
    return call.output(input.axes, call.same_flow(input))
