"""Where blocks and connections are usually put: activations, sums of two tensors, results of modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.layers import Blend
from graphgrow.network.junctions import is_activation, is_sum, junctions
from tests.rewrite.small_models import Forward


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.prelu = nn.Linear(3, 4), nn.SiLU(), nn.PReLU(4)
        self.blend, self.block = Blend(nn.ReLU(), nn.GELU()), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.table, self.last = nn.Parameter(torch.randn(4)), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        x = self.act(self.stem(x))
        x = self.prelu(x) + F.relu(x)
        x = self.blend(x).add(self.table.tanh())
        x = self.block(x) * x.sigmoid() + 1.0
        x = torch.add(x, x.shape[0])
        return {"y": self.last(x).relu(), "n": x.sum(-1).relu() + x.argmax(-1)}


def test_activations_sums_and_results() -> None:
    graph = gg.trace(Everything(), torch.randn(5, 3))
    assert graph.analysis.facts
    assert [graph.sites.name(node) for node in junctions(graph)] == [
        "act",
        "prelu",
        ":relu",
        ":add",
        "blend",
        ":add@2",  # with a table that is computed; the table itself depends on no input
        "block.1",  # leaves a module
        ":sigmoid",
    ]


def test_activations_are_functions_of_one_tensor() -> None:
    graph = gg.trace(Everything(), torch.randn(5, 3))
    found = {graph.sites.name(n) for n in graph.module.graph.nodes if n.op != "output" and is_activation(graph, n)}
    assert found == {"act", "prelu", ":relu", "blend", ":sigmoid", ":tanh", ":relu@2", ":relu@3"}


def test_sums_are_of_two_tensors() -> None:
    graph = gg.trace(Everything(), torch.randn(5, 3))
    assert graph.analysis.facts
    assert [graph.sites.name(node) for node in graph.module.graph.nodes if is_sum(node)] == [":add", ":add@2", ":add@5"]


def test_a_model_without_any() -> None:
    graph = gg.trace(Forward(lambda m, x: m.last(x), last=nn.Linear(3, 2)), torch.randn(5, 3))
    assert graph.analysis.facts
    assert list(junctions(graph)) == []
    assert list(graph.mutations("deepen")) == []
