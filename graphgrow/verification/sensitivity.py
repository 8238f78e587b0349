"""Could a comparison have seen a mistake? Planted ones, and outputs that would hide any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.verification.probes import Inputs


def degeneracy(outputs: list[Any]) -> str:
    """Why outputs could not show a difference: not finite, vanishing, or the same for every input."""
    if not any(isinstance(t, torch.Tensor) and t.is_floating_point() for t in pytree.tree_leaves(outputs)):
        return "no output is of floating point"
    for leaves in zip(*(pytree.tree_leaves(output) for output in outputs), strict=True):
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
        if not tensors:
            continue
        if not all(bool(torch.isfinite(t).all()) for t in tensors):
            return "an output is not finite"
        scale = max(float(t.abs().max()) for t in tensors)
        if scale < 1e-6:
            return f"an output vanishes (at most {scale:.1e})"
        rows = [row for t in tensors for row in (t if t.dim() else t[None])]
        alike = [row for row in rows if row.shape == rows[0].shape]
        if len(alike) > 1 and max(float((row - alike[0]).abs().max()) for row in alike) < 1e-6 * scale:
            return "an output is the same for every input"
    return ""


def weight_that_matters(module: fx.GraphModule, probe: Inputs, touched: set[str]) -> tuple[str, int]:
    """The parameter and position of the largest |w dL/dw|, among those that growth made or replaced if there are any.

    Where those are all zero or have no gradient (a closed block), it is that of the largest |dL/dw| among them.
    """
    with torch.enable_grad():
        parameters = dict(module.named_parameters())
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        output = module(*probe[0], **probe[1])
        leaves = [t for t in pytree.tree_leaves(output) if isinstance(t, torch.Tensor) and t.is_floating_point()]
        generator = torch.Generator().manual_seed(0)
        draws = [torch.randn(t.shape, generator=generator, dtype=t.dtype).to(t.device) for t in leaves]
        loss = torch.stack([(t * draw).sum() for t, draw in zip(leaves, draws, strict=True)]).sum()
        gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
            loss, list(parameters.values()), allow_unused=True
        )
    known = {name: g for name, g in zip(parameters, gradients, strict=True) if g is not None}
    chosen = {name: g for name, g in known.items() if name in touched} or known
    best = _largest({name: parameters[name].detach() * g for name, g in chosen.items()})
    if best is None or best[0] == 0:
        best = _largest(chosen)
    return (next(iter(parameters)), 0) if best is None else best[1:]


def _largest(values: Mapping[str, torch.Tensor]) -> tuple[float, str, int] | None:
    """The largest magnitude, the name of its tensor, and its position there."""
    best: tuple[float, str, int] | None = None
    for name, value in values.items():
        magnitude = value.detach().abs().flatten()
        position = int(magnitude.argmax())
        found = (float(magnitude[position]), name, position)
        best = found if best is None else max(best, found)
    return best
