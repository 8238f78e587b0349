"""Activations by name, and activations that are written as functions, as modules."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# Of bounded growth: |f(x)| <= a |x| + b, finite wherever x is, so that a closed share of them adds exactly nothing.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky-relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "identity": nn.Identity,
}

_FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, torch.relu: nn.ReLU, torch.relu_: nn.ReLU, F.relu_: nn.ReLU, "relu": nn.ReLU, "relu_": nn.ReLU,
    F.relu6: nn.ReLU6, F.leaky_relu: nn.LeakyReLU, F.gelu: nn.GELU, F.silu: nn.SiLU, F.elu: nn.ELU, F.selu: nn.SELU,
    F.celu: nn.CELU, F.mish: nn.Mish, F.hardswish: nn.Hardswish, F.hardtanh: nn.Hardtanh,
    F.hardsigmoid: nn.Hardsigmoid, F.tanh: nn.Tanh, torch.tanh: nn.Tanh, "tanh": nn.Tanh, F.sigmoid: nn.Sigmoid,
    torch.sigmoid: nn.Sigmoid, "sigmoid": nn.Sigmoid, F.softplus: nn.Softplus, F.softsign: nn.Softsign,
}  # fmt: skip


def name_of(module: nn.Module) -> str | None:
    """The name of an activation; None for any other module."""
    return next((name for name, factory in ACTIVATIONS.items() if type(module) is factory), None)


def as_module(
    module: nn.Module | None, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> nn.Module | None:
    """An activation as a module of its own, never in place; None for what is no activation of the list.

    Args:
        module: the module that is called, where one is.
        target: the function, or the name of the tensor method.
        args: of the call behind its first, the tensor.
        kwargs: of the call.
    """
    if module is not None:
        return not_in_place(module) if name_of(module) is not None else None
    kind = _FUNCTIONS.get(target)
    if kind is None:
        return None
    options = dict(kwargs)
    if args:
        if not callable(target):
            return None
        try:
            names = list(inspect.signature(target).parameters)[1:]
        except ValueError:  # a builtin without a signature
            return None
        options |= dict(zip(names, args, strict=False))
    options.pop("inplace", None)
    known = set(inspect.signature(kind).parameters)
    if any(not isinstance(value, (int, float, str)) for value in options.values()) or not set(options) <= known:
        return None
    return kind(**options)


def not_in_place(module: nn.Module) -> nn.Module:
    """A copy of an activation over the same parameters that leaves its input as it is."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__)
    twin._parameters = dict(module._parameters)
    if hasattr(twin, "inplace"):
        twin.__dict__["inplace"] = False
    return twin
