"""What is new in a grown network's parameters, found by the machinery that carries optimizer state over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphgrow.graph import Graph
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.roles import register_optimizer


@dataclass(frozen=True, eq=False)
class Newness:
    """What a growth changes for training, by names of the child's parameters; what it leaves as it was is left out.

    Attributes:
        entries: which entries neither were there before nor are copies of such, bool.
        paces: by what the first step of each entry is multiplied, float32, so that the function changes no faster than
            without the growth: 0 for new entries; for shares of an entry, each of which gets the gradient of the whole,
            one over their number; for copies that are read with weights of opposite signs, 1 over by how much further
            they go together (`graphgrow.rewrite.shares`).
    """

    entries: dict[str, torch.Tensor]
    paces: dict[str, torch.Tensor]


class _Marks(Optimizer):
    """Keeps 1 for each entry that was there before: copies inherit it, new entries and parameters have none."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})
        for group in self.param_groups:
            for parameter in group["params"]:
                for name in ("known", "pace"):
                    self.state[parameter][name] = torch.ones_like(parameter, dtype=torch.float32)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """It trains nothing."""
        raise NotImplementedError


register_optimizer(_Marks, known="direction", pace="pace")


def newness(graph: Graph, mutations: Iterable[Mutation | str], seed: int) -> Newness:
    """What `apply` with this seed makes new.

    Raises:
        MutationError, Declined: as `apply` does.
    """
    return newness_along(graph, [(mutation, seed) for mutation in mutations])


def newness_along(graph: Graph, growths: Iterable[tuple[Mutation | str, int]]) -> Newness:
    """What mutations make new, one behind the other, each with its seed; raises as `newness`."""
    marks = _Marks(graph.module.parameters())
    child = graph
    for seed, group in groupby(growths, key=lambda growth: growth[1]):
        child = apply(child, [mutation for mutation, _ in group], seed=seed, optimizer=marks)
    found = Newness({}, {})
    for name, parameter in child.module.named_parameters():
        state = marks.state.get(parameter, {})
        known, pace = (state.get(key, torch.zeros_like(parameter, dtype=torch.float32)) for key in ("known", "pace"))
        new = known == 0
        if bool(new.any()):
            found.entries[name] = new
        if bool((pace != 1).any()):
            found.paces[name] = pace
    return found


def drawn_entries(
    graph: Graph, mutations: Iterable[Mutation | str], seed: int, new: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Which of the new entries another seed would have drawn otherwise, by names of the child's parameters.

    Those may hold other numbers as well. What a growth gives other new entries is part of its exactness: zeros that
    keep new units unheard, the mean of the old rows in front of a layer norm.

    Args:
        graph: the parent.
        mutations: as for `apply`, likewise the seed.
        seed: of the fresh weights.
        new: which entries are new (`Newness.entries`).

    Raises:
        MutationError, Declined: as `apply` does.
    """
    chosen = list(mutations)
    one, other = (apply(graph, chosen, seed=number).module for number in (seed, seed + 1))
    found = {}
    for name, entries in new.items():
        drawn = entries & (one.get_parameter(name).detach() != other.get_parameter(name).detach())
        if bool(drawn.any()):
            found[name] = drawn
    return found
