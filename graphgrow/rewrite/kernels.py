"""Rings of taps around the kernel of a convolution: put on, and taken off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import TensorChange
from graphgrow.rewrite.roles import Role
from graphgrow.rewrite.shapes import check_shapes
from graphgrow.rewrite.tensors import laid_out_like

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def convolution(network: Network, site: str) -> Any:
    """The convolution module of a site, whose weight nothing else uses; all six classes have the same fields.

    Raises:
        Declined: if it is none, or its kernel cannot change its size.
    """
    node = network.sites.find(site)
    module = called_module(network.module, node)
    if not isinstance(module, CONVOLUTIONS) or type(module) not in CONVOLUTIONS:
        raise Declined(f"`{site}` is no convolution module of torch.nn")
    if module.padding_mode != "zeros":
        raise Declined(f"`{site}` pads with {module.padding_mode}: more padding would repeat other values")
    if module._parameters.get("weight") is None or _uses(network, f"{node.target}.weight") > 1:
        raise Declined(f"the weight of `{site}` is used by other operators too")
    return module


def change_rings(
    network: Network, editor: Editor, site: str, rings: tuple[int, ...]
) -> tuple[Step, list[TensorChange]]:
    """Put rings of zeros around a kernel, or take rings off it, and change the padding by as much.

    Args:
        network: the parent.
        editor: over a copy of its module.
        site: of a `convolution`.
        rings: for each axis of the kernel, how many; below zero they are taken off.
    """
    module: Any = editor.module.get_submodule(str(network.sites.find(site).target))
    old = module.weight
    editor.set_tensor(_names(editor.module, old), laid_out_like(_ringed(old.detach(), rings), old))
    padding: Any = module.padding
    if padding == "valid":
        padding = (0,) * len(rings)
    if padding != "same":
        module.padding = tuple(p + d * r for p, d, r in zip(padding, module.dilation, rings, strict=True))
    module.kernel_size = tuple(size + 2 * ring for size, ring in zip(module.kernel_size, rings, strict=True))
    if hasattr(module, "_reversed_padding_repeated_twice"):
        module._reversed_padding_repeated_twice = _both_sides(module, rings)
    check_shapes(network, editor)
    names = _names(editor.module, module.weight)
    kept = {axis: _places(size, ring) for axis, (size, ring) in enumerate(zip(old.shape[2:], rings, strict=True), 2)}
    step = Step(tensors=dict.fromkeys(names, kept), touched=names)
    return step, [TensorChange(names, old, module.weight, lambda state, role: _carry(state, role, rings))]


def _places(size: int, ring: int) -> torch.Tensor:
    """Where the old taps along an axis are now; -1 where they are gone."""
    now = torch.arange(size) + ring
    return torch.where((now < 0) | (now >= size + 2 * ring), -1, now)


def _names(module: nn.Module, tensor: torch.Tensor) -> tuple[str, ...]:
    return tuple(name for name, p in module.named_parameters(remove_duplicate=False) if p is tensor)


def _uses(network: Network, weight: str) -> int:
    """How many names the parameter has, and whether a node fetches it bare."""
    names = network.analysis.parameters[weight].aliases
    return len(names) + int(not network.analysis.fetched.isdisjoint(names))


def _ringed(tensor: torch.Tensor, rings: tuple[int, ...], value: float = 0.0) -> torch.Tensor:
    return F.pad(tensor, [side for ring in reversed(rings) for side in (ring, ring)], value=value)


def _both_sides(module: Any, rings: tuple[int, ...]) -> Sequence[int]:
    """Torch's private copy of the padding, for the modes that pad with other values than zeros."""
    if module.padding == "same":
        before = module._reversed_padding_repeated_twice
        extra = [d * r for d, r in zip(module.dilation, rings, strict=True) for _ in (0, 1)]
        return [a + b for a, b in zip(before, reversed(extra), strict=True)]
    return tuple(p for p in reversed(module.padding) for _ in (0, 1))


def _carry(state: torch.Tensor, role: Role, rings: tuple[int, ...]) -> torch.Tensor:
    """New taps: no first moment; the second moment is the mean over the old taps, since `step` is carried over."""
    grown = _ringed(state, rings)
    if not role.averaged or min(rings) < 0:
        return grown
    inside = _ringed(torch.ones_like(state), rings) > 0
    mean = state.mean(tuple(range(2, state.dim())), keepdim=True)
    return torch.where(inside, grown, mean.expand_as(grown))
