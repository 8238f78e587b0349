"""Whether the sums of a node are exact in float64: products on a grid, and no sum beyond 2^53 of its meshes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from graphgrow.ir.called import called_module
from graphgrow.verification.case import Case
from graphgrow.verification.probes import Inputs
from graphgrow.verification.runner import Runner

BITS = 53


def is_exact(case: Case, name: str, probe: Inputs) -> bool:
    """Whether a node of the child, whose old units differ, computes all of them without rounding.

    Only then does a difference prove a mistake. Sums over linear maps and additions can be shown to be exact;
    moving numbers about is; of anything else it is not known.

    Args:
        case: parent and child on the lattice.
        name: of the node, in the child.
        probe: the inputs on which it differs.
    """
    runner = case.runner(case.child.module, probe, "eval")
    for node in case.child.module.graph.nodes:
        if node.name == name:
            return _sums_exactly(case, runner, node)
        runner.run(node)
    return name.startswith("output")  # every node in front of it agreed


def _sums_exactly(case: Case, runner: Runner, node: fx.Node) -> bool:
    called = called_module(runner.module, node)
    args = runner.arguments(node.args)
    tensors = [leaf for leaf in args if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    if isinstance(called, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and len(tensors) == 1:
        kept = case.counterparts.places.get(node.name, {}).get(_channels_out(called, tensors[0]))
        return _map_is_exact(runner, called, tensors[0], kept if isinstance(kept, torch.Tensor) else None)
    if called is not None or not tensors:
        return False
    most = torch.stack([t.abs().max() for t in tensors]).sum()
    mesh = torch.stack([grid(t).min() for t in tensors]).min()
    return bool(torch.isfinite(most)) and bool(most <= mesh * 2.0**BITS)


def _map_is_exact(runner: Runner, called: Any, x: torch.Tensor, kept: torch.Tensor | None) -> bool:
    """For each old row: sum |w| max|x| within 2^53 meshes of the finest product that is not zero."""
    channel = x.dim() - 1 if isinstance(called, nn.Linear) else x.dim() - called.weight.dim() + 1
    others = [axis for axis in range(x.dim()) if axis != channel]
    most = x.abs().amax(others) if others else x.abs()
    mesh = grid(x).amin(others) if others else grid(x)
    weight = runner.numbers.of(called.weight)
    rows = weight.flatten(2) if weight.dim() > 2 else weight[:, :, None]  # (out, in / groups, positions)
    groups = getattr(called, "groups", 1)
    of_row = torch.arange(rows.shape[0]) // (rows.shape[0] // groups)
    columns = of_row[:, None] * rows.shape[1] + torch.arange(rows.shape[1])
    total = (rows.abs().sum(2) * most[columns]).sum(1)
    finest = (grid(rows) * mesh[columns][:, :, None]).amin((1, 2))
    if called.bias is not None:
        bias = runner.numbers.of(called.bias)
        total, finest = total + bias.abs(), torch.minimum(finest, grid(bias))
    exact = total <= finest * 2.0**BITS
    return bool((exact if kept is None else exact[kept[kept >= 0]]).all())


def grid(tensor: torch.Tensor) -> torch.Tensor:
    """For each number the largest power of two that it is a multiple of; infinity for 0 (float64)."""
    mantissa, exponent = torch.frexp(tensor)
    whole = (mantissa * 2.0**BITS).to(torch.int64)
    lowest = (whole & -whole).double()
    return torch.where(tensor == 0, torch.inf, torch.ldexp(lowest, exponent - BITS))


def _channels_out(called: nn.Module, x: torch.Tensor) -> int:
    return x.dim() - 1 if isinstance(called, nn.Linear) else 1
