"""A network, its optimizer and its average at one moment, to go back to."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from graphgrow.errors import LedgerError
from graphgrow.graph import Graph
from graphgrow.network.ledger import Ledger
from graphgrow.rewrite.apply import replay
from graphgrow.store.tensors import install, unique_tensors
from graphgrow.train.averaging import averaged_network, put_average


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
    _average: fx.GraphModule | None

    @classmethod
    def of(cls, graph: Graph, optimizer: Optimizer | None, averaged: AveragedModel | None = None) -> Snapshot:
        """Copy everything that training changes."""
        groups: list[dict[str, Any]] = []
        state: dict[torch.Tensor, dict[str, Any]] = {}
        if optimizer is not None:
            keys = ("params", "param_names")
            groups = [{key: list(group[key]) for key in keys if key in group} for group in optimizer.param_groups]
            state = {parameter: _copied(items) for parameter, items in optimizer.state.items()}
        average = None if averaged is None else copy.deepcopy(averaged_network(averaged))
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
            put_average(averaged, self._average, self.graph)
        return self.graph

    def plain(self) -> dict[str, Any]:
        """The same as plain values and tensors, parameters by their names, for `from_plain`."""
        names = {id(parameter): name for name, parameter in self.graph.module.named_parameters()}
        return {
            "ledger": self.graph.ledger.to_json(),
            "tensors": self._tensors,
            "groups": [
                {key: [names[id(item)] if key == "params" else item for item in items] for key, items in group.items()}
                for group in self._groups
            ],
            "state": {names[id(parameter)]: items for parameter, items in self._state.items()},
            "average": None if self._average is None else unique_tensors(self._average),
        }

    @classmethod
    def from_plain(cls, base: Graph, plain: Mapping[str, Any]) -> Snapshot:
        """Build the network of that moment anew from its base.

        Raises:
            LedgerError: if it did not grow from this base.
        """
        entries = Ledger.from_json(plain["ledger"]).after(base.ledger)
        if entries is None:
            raise LedgerError("the network to go back to did not grow from this base")
        graph = replay(dataclasses.replace(base, module=copy.deepcopy(base.module)), entries)
        install("the snapshot", graph.module, plain["tensors"])
        graph = dataclasses.replace(graph)  # without what was found out about the tensors it had
        average = None
        if plain["average"] is not None:
            average = copy.deepcopy(graph.module)
            install("the snapshot's average", average, plain["average"])
        found = graph.module.get_parameter
        groups = [
            {key: [found(item) if key == "params" else item for item in items] for key, items in group.items()}
            for group in plain["groups"]
        ]
        state: dict[torch.Tensor, dict[str, Any]] = {found(name): items for name, items in plain["state"].items()}
        return cls(graph, dict(plain["tensors"]), groups, state, average)


def _tensors(graph: Graph) -> list[tuple[str, torch.Tensor]]:
    return [*graph.module.named_parameters(), *graph.module.named_buffers()]


def _copied(items: dict[str, Any]) -> dict[str, Any]:
    return {key: item.clone() if isinstance(item, torch.Tensor) else copy.deepcopy(item) for key, item in items.items()}
