"""Which entries of a grown network's parameters are new, found by the machinery that carries optimizer state over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.graph import Graph
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.roles import register_optimizer


class _Marks(Optimizer):
    """Keeps 1 for each entry that was there before: copies inherit it, new entries and parameters have none."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["known"] = torch.ones_like(parameter, dtype=torch.float32)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """It trains nothing."""
        raise NotImplementedError


register_optimizer(_Marks, known="direction")


def new_entries(graph: Graph, mutations: Iterable[Mutation | str], seed: int) -> dict[str, torch.Tensor]:
    """Which entries of the child's parameters neither were there before nor are copies of such, bool, by name.

    Parameters without new entries are left out.

    Raises:
        MutationError, Declined: as `apply` does.
    """
    marks = _Marks(graph.module.parameters())
    child = apply(graph, list(mutations), seed=seed, optimizer=marks)
    found = {}
    for name, parameter in child.module.named_parameters():
        known = marks.state.get(parameter, {}).get("known")
        new = torch.ones_like(parameter, dtype=torch.bool) if known is None else known == 0
        if bool(new.any()):
            found[name] = new
    return found


def shared_entries(parent: Graph, child: Graph, new: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Which entries of the child's parameters hold a share of an old entry that was shared out, bool, by name.

    Each share gets the whole gradient that the entry had, so that together they go as many times as far.

    Args:
        parent: the graph before, with the numbers that it was grown with.
        child: grown, not trained yet.
        new: what `new_entries` found.
    """
    before = dict(parent.module.named_parameters())
    steps = child.steps[len(parent.steps) :]
    found = {}
    for name, parameter in child.module.named_parameters():
        old = before.get(name)
        if old is None or old is parameter or old.dim() != parameter.dim():
            continue
        places = [torch.arange(size) for size in old.shape]
        for step in steps:
            for axis, kept in step.tensors.get(name, {}).items():
                places[axis] = kept[places[axis]]
        index = torch.meshgrid(*places, indexing="ij")
        changed = (parameter.detach()[index] != old.detach()).to(parameter.device)
        if not bool(changed.any()):
            continue
        shared = torch.ones_like(parameter, dtype=torch.bool)  # copies stand where neither old nor new entries do
        shared[index] = changed
        found[name] = shared & ~new[name] if name in new else shared
    return found
