"""Dropout and stochastic depth: noise in train mode, nothing in eval mode."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, plain
from graphgrow.ops.registry import conduct_rule, rule

_NAMES = ("droppath", "drop_path", "stochasticdepth", "stochastic_depth", "dropconnect")


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


@rule(F.alpha_dropout, F.feature_alpha_dropout)
def alpha_dropout(call: Call, input: Value, p: float = 0.5, training: Any = False, inplace: bool = False) -> Value:
    """Alpha dropout whose mode is fixed in the model's source."""
    if training:
        call.noise(input, float(plain(p)))
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(F.rrelu)
def random_slope(
    call: Call, input: Value, lower: Any = 1 / 8, upper: Any = 1 / 3, training: Any = False, inplace: bool = False
) -> Value:
    """Below zero, a slope that is drawn for each element by itself, where the mode is fixed in the model's source."""
    if training:
        call.noise(input, 1.0)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))


def drops_rows(module: nn.Module) -> bool:
    """Whether a module is stochastic depth, as nearly every library writes it anew.

    Its class is called so, it holds nothing, and it is seen to pass its input on in eval mode, and in train mode to
    scale each row of the batch by one number, of which all that are not zero are equal.
    """
    if not any(word in type(module).__name__.lower() for word in _NAMES):
        return False
    if any(True for _ in module.children()) or module._parameters or module._buffers or not _takes_one(module):
        return False
    one = copy.copy(module)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for rank in (3, 4):
            x = torch.rand(16, *[2] * (rank - 1)) + 0.5
            given = x.clone()
            try:
                kept, scaled = one.eval()(given), one.train()(given)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
                return False  # it wants something else than features
            if not isinstance(scaled, torch.Tensor) or not torch.equal(given, x) or not torch.equal(kept, x):
                return False
            factors = (scaled / x).flatten(1)
            alive = factors[factors[:, 0] != 0]
            if scaled.shape != x.shape or not torch.allclose(factors, factors[:, :1].expand_as(factors)):
                return False
            if not torch.allclose(alive, alive[:1].expand_as(alive)):
                return False
    return True


def _takes_one(module: nn.Module) -> bool:
    parameters = list(inspect.signature(module.forward).parameters.values())
    return bool(parameters) and all(p.default is not p.empty for p in parameters[1:])


@rule("torchvision.ops.stochastic_depth.StochasticDepth", "timm.layers.drop.DropPath")
@conduct_rule(drops_rows)
def stochastic_depth(call: Call, input: Value) -> Value:
    """Whole rows of the batch are dropped: one mask for all units, so copies share it."""
    mode = getattr(call.module, "mode", "row")
    if mode != "batch":
        call.freeze(input.axes if mode != "row" else input.axes[:1], f"stochastic depth of mode {mode!r}")
    return call.output(input.axes, call.same_flow(input))
