"""Copies to compare on: with tensors of their own, in float64, or refilled with lively weights."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TypeVar

import torch
from torch import fx, nn

from graphgrow.ir.doubles import in_double, of_kind
from graphgrow.ir.editor import Editor
from graphgrow.layers import Blend, Choice
from graphgrow.network.network import Network
from graphgrow.verification.noise import quiet
from graphgrow.verification.numbers import Numbers

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
N = TypeVar("N", bound=Network)
M = TypeVar("M", bound=nn.Module)


def own_network(network: N) -> N:
    """A network over the same parameters; its graph, modules and buffers are its own."""
    return dataclasses.replace(network, module=Editor(network.module).finish())


def wide_network(network: N) -> N:
    """A copy of a network in float64, sharing nothing."""
    module = widened(Editor(network.module, share=False).finish())
    return dataclasses.replace(network, module=module, inputs=network.inputs.with_dtype(torch.float64))


def double_network(network: N) -> N:
    """The same with noise off."""
    wide = wide_network(network)
    return dataclasses.replace(wide, module=quiet(wide.module))


def double_module(module: M) -> M:
    """A deep copy of a module in float64, noise off."""
    return quiet(widened(copy.deepcopy(module)))


def widened(module: M) -> M:
    """A module taken to float64, in place: its tensors, and the narrower dtypes that its graph names."""
    module._apply(_number_in_double)  # type: ignore[no-untyped-call]  # as .double() does, and complex ones too
    if isinstance(module, fx.GraphModule):
        Numbers(torch.float64).name_in(module.graph)
        module.recompile()
    return module


def _number_in_double(tensor: torch.Tensor) -> torch.Tensor:
    return in_double(tensor) if tensor.is_floating_point() or tensor.is_complex() else tensor


def refill(network: N, seed: int, keep: frozenset[str] = frozenset()) -> N:
    """A copy of a network with lively weights: He-normal maps, norms around 1, biases and statistics off zero.

    Zero-initialised heads and vanishing gains hide every difference behind them; here nothing vanishes.

    Args:
        network: to be copied.
        seed: of the numbers.
        keep: names of parameters and buffers that stay as they are.
    """
    module = Editor(network.module, share=False).finish()
    generator = torch.Generator().manual_seed(seed)
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    done = {id(tensor) for name, tensor in named if name in keep}
    with torch.no_grad():
        for part in module.modules():
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                numbers = tensor.is_floating_point() or tensor.is_complex()
                if numbers and id(tensor) not in done and not tensor.is_meta:
                    tensor.copy_(_lively(part, name, tensor, generator))
                    done.add(id(tensor))
    return dataclasses.replace(network, module=module)


def _lively(part: nn.Module, name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    double = tensor.dtype in (torch.float64, torch.complex128)
    drawn = of_kind(torch.float64 if double else torch.float32, tensor.dtype)  # wider ones take twice the time
    noise = torch.randn(tensor.shape, generator=generator, dtype=drawn)
    if name == "running_var" or (name == "weight" and isinstance(part, _NORMS)):
        return 0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    if isinstance(part, (Blend, Choice)):
        return in_double(tensor)  # a share of 0 or 1 is a state that later mutations rest on
    if isinstance(tensor, nn.Parameter) and tensor.dim() >= 2:
        return noise * math.sqrt(2.0 / max(tensor[0].numel(), 1))
    if isinstance(tensor, nn.Parameter) or name == "running_mean":
        return noise * 0.1
    return in_double(tensor)  # other buffers hold tables and masks, which mean what they say
