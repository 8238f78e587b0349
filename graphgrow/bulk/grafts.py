"""Blocks of a larger sibling that a graph has nothing like: the sibling keeps its own, to no effect at the start.

A stage that begins with a block of another shape may hold no residual block that could be copied (EfficientNet's first,
the stages of a ResNet of depth one). Its further blocks in the target are residual: with the last map of each branch at
zero they pass their input on, whatever their other weights are, and they learn. The further layers of a dense block
(DenseNet's) put their results behind the others in a concatenation: columns of zeros read them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.errors import Declined
from graphgrow.ir.terms import Space, leaves
from graphgrow.ir.value import Value
from graphgrow.layers import RootMeanSquareNorm
from graphgrow.network.network import Network
from graphgrow.network.overflow import first_infinite
from graphgrow.rewrite.closing import close_branches, open_ones
from graphgrow.rewrite.region import Region

_JOINS = (torch.cat, torch.concat, torch.concatenate)


@dataclass(frozen=True)
class Graft:
    """A block of the target's own.

    Attributes:
        path: of its module.
        beside: the path of the block in front of it, which is the graph's.
        values: by name of the parameters that close it, the number that each is filled with.
        joined: of a layer whose result is joined to others alone, the spaces of that.
    """

    path: str
    beside: str
    values: Mapping[str, float]
    joined: frozenset[Space] = frozenset()

    @classmethod
    def of(cls, target: Network, path: str, beside: str) -> Graft | None:
        """A block that zeros make the identity; None where it is not seen that any would.

        Args:
            target: the larger sibling, captured.
            path: of the block's module.
            beside: that of the block in front.
        """
        module, facts = target.module, target.analysis.facts
        region = _region(target, path)
        if region is None or first_infinite((facts[node] for node in region.nodes), region.result.name) is not None:
            return None
        for stream in region.streams():
            closings = close_branches(module, region.nodes, stream, region.result, stream, path)
            if closings is not None:
                zeros = open_ones(module, region.nodes, stream, region.result, stream, closings)
                return cls(path, beside, dict(_values(module, zeros)))
        return None

    @classmethod
    def beside_others(cls, target: Network, path: str, beside: str) -> Graft | None:
        """A layer whose result stands in concatenations and nowhere else; None where that is not seen.

        Args:
            target: the larger sibling, captured.
            path: of the layer's module.
            beside: that of the layer in front.
        """
        region = _region(target, path)
        value = None if region is None else target.analysis.facts[region.result].output
        if region is None or not isinstance(value, Value) or any(u.target not in _JOINS for u in region.result.users):
            return None
        spaces = {leaf for term in value.axes for leaf in leaves(term)}
        return cls(path, beside, {}, frozenset(space for space in spaces if space.frozen is None))

    def close(self, model: nn.Module) -> None:
        """Write the zeros into the model, in place."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, value in self.values.items():
                parameters[name].fill_(value)

    def join(self, optimizer: Optimizer, model: nn.Module) -> None:
        """Let an optimizer train the block with the group of the one in front; without state, as at its start."""
        near = {id(parameter) for parameter in model.get_submodule(self.beside).parameters()}
        present = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        groups = [group for group in optimizer.param_groups if any(id(p) in near for p in group["params"])]
        new = [p for p in model.get_submodule(self.path).parameters() if id(p) not in present]
        if groups:
            groups[0]["params"].extend(new)


def within(name: str, grafts: Iterable[Graft]) -> bool:
    """Whether a module path or the name of a tensor is that of a graft, or lies in one."""
    return any(f"{name}.".startswith(f"{graft.path}.") for graft in grafts)


def _region(target: Network, path: str) -> Region | None:
    """What a module computes, where that is one value of its inputs."""
    try:
        return Region.of(target.module.graph, path)
    except Declined:
        return None


def _values(module: nn.Module, closings: Collection[str]) -> Iterable[tuple[str, float]]:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for target in closings:
        for name in (target, f"{target}.weight", f"{target}.bias"):
            if name in parameters:
                owner = module.get_submodule(name.rpartition(".")[0])
                yield name, -owner.offset if isinstance(owner, RootMeanSquareNorm) else 0.0
