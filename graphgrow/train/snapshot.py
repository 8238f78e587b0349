"""A network, its optimizer and its average at one moment, to go back to."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from graphgrow.graph import Graph


@dataclass(frozen=True)
class Snapshot:
    """What `restore` goes back to. The learning rates of the optimizer's groups go on as they are.

    Attributes:
        graph: whose tensors get their old values back.
    """

    graph: Graph
    _tensors: dict[str, torch.Tensor]
    _groups: list[dict[str, Any]]
    _state: dict[torch.Tensor, dict[str, Any]]
    _average: nn.Module | None

    @classmethod
    def of(cls, graph: Graph, optimizer: Optimizer | None, averaged: AveragedModel | None = None) -> Snapshot:
        """Copy everything that training changes."""
        groups: list[dict[str, Any]] = []
        state: dict[torch.Tensor, dict[str, Any]] = {}
        if optimizer is not None:
            keys = ("params", "param_names")
            groups = [{key: list(group[key]) for key in keys if key in group} for group in optimizer.param_groups]
            state = {parameter: _copied(items) for parameter, items in optimizer.state.items()}
        average = None if averaged is None else copy.deepcopy(averaged.module)
        return cls(graph, {name: t.detach().clone() for name, t in _tensors(graph)}, groups, state, average)

    def restore(self, optimizer: Optimizer | None, averaged: AveragedModel | None = None) -> Graph:
        """Put everything back; the graph's own tensors are written to."""
        with torch.no_grad():
            for name, tensor in _tensors(self.graph):
                tensor.copy_(self._tensors[name])
        if optimizer is not None:
            for group, kept in zip(optimizer.param_groups, self._groups, strict=True):
                for key, items in kept.items():
                    group[key][:] = items
            optimizer.state.clear()
            optimizer.state.update({parameter: _copied(items) for parameter, items in self._state.items()})
        if averaged is not None and self._average is not None:
            averaged.module = self._average
        return self.graph


def _tensors(graph: Graph) -> list[tuple[str, torch.Tensor]]:
    return [*graph.module.named_parameters(), *graph.module.named_buffers()]


def _copied(items: dict[str, Any]) -> dict[str, Any]:
    return {key: item.clone() if isinstance(item, torch.Tensor) else copy.deepcopy(item) for key, item in items.items()}
