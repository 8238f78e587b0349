"""Copies to compare on: with noise off, in float64, or refilled with lively weights."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TypeVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ir.editor import Editor
from graphgrow.layers import Blend
from graphgrow.rewrite.network import Network

_NOISY_FUNCTIONS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout)
_NOISY_CLASSES = ("Dropout", "AlphaDropout", "StochasticDepth", "DropPath")
_BATCH_NORMS = (nn.modules.batchnorm._NormBase,)
_NORMS = (*_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
N = TypeVar("N", bound=Network)
M = TypeVar("M", bound=nn.Module)


def quiet_network(network: N) -> N:
    """A network over the same parameters, noise off; its graph, modules and buffers are its own."""
    return dataclasses.replace(network, module=quiet(Editor(network.module).finish()))


def double_network(network: N) -> N:
    """A copy of a network in float64, noise off, sharing nothing."""
    module = quiet(Editor(network.module, share=False).finish().double())
    return dataclasses.replace(network, module=module, inputs=network.inputs.with_dtype(torch.float64))


def double_module(module: M) -> M:
    """A deep copy of a module in float64, noise off."""
    return quiet(copy.deepcopy(module).double())


def quiet(module: M) -> M:
    """Switch off dropout and stochastic depth, in place: their probabilities become 0."""
    for part in module.modules():
        if any(name in type(part).__name__ for name in _NOISY_CLASSES) and hasattr(part, "p"):
            setattr(part, "p", 0.0)  # noqa: B010  # a plain assignment is typed as a tensor's
        for name in ("dropout_p", "drop_prob"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    if isinstance(module, fx.GraphModule):
        for node in module.graph.nodes:
            if node.op == "call_function" and node.target in _NOISY_FUNCTIONS:
                node.args, node.kwargs = node.args[:1], {"p": 0.0, "training": False}
            elif node.op == "call_function" and node.target is F.scaled_dot_product_attention:
                node.args = node.args[:4] + (0.0,) * (len(node.args) > 4) + node.args[5:]
                node.kwargs = {**node.kwargs, **({"dropout_p": 0.0} if "dropout_p" in node.kwargs else {})}
        module.recompile()
    return module


def depends_on_mode(module: fx.GraphModule) -> bool:
    """Whether a quiet graph may compute something else in train than in eval mode.

    Modules of torch.nn do not, batch and instance norm (and the noise that is off) aside; of any other it is not known.
    """
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in (F.batch_norm, F.instance_norm):
            return True
        if node.op != "call_module":
            continue
        for part in module.get_submodule(str(node.target)).modules():
            silent = any(name in type(part).__name__ for name in _NOISY_CLASSES)
            plain = type(part).__module__.startswith(("torch.nn.", "graphgrow.layers"))
            if not silent and (not plain or isinstance(part, (*_BATCH_NORMS, nn.RReLU, nn.RNNBase))):
                return True
    return False


def refill(network: N, seed: int) -> N:
    """A copy of a network with lively weights: He-normal maps, norms around 1, biases and statistics off zero.

    Zero-initialised heads and vanishing gains hide every difference behind them; here nothing vanishes.
    """
    module = Editor(network.module, share=False).finish()
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    with torch.no_grad():
        for part in module.modules():
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                if tensor.is_floating_point() and id(tensor) not in done and not tensor.is_meta:
                    tensor.copy_(_lively(part, name, tensor, generator))
                    done.add(id(tensor))
    return dataclasses.replace(network, module=module)


def _lively(part: nn.Module, name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    if name == "running_var" or (name == "weight" and isinstance(part, _NORMS)):
        return 0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    if isinstance(part, Blend):
        return tensor.double()  # a share of 0 or 1 is a state that later mutations rest on
    if isinstance(tensor, nn.Parameter) and tensor.dim() >= 2:
        return noise * math.sqrt(2.0 / max(tensor[0].numel(), 1))
    if isinstance(tensor, nn.Parameter) or name == "running_mean":
        return noise * 0.1
    return tensor.double()  # other buffers hold tables and masks, which mean what they say
