"""What a model computes under `torch.no_grad()` has no gradient in the graph either, and the rest has the model's."""

from __future__ import annotations

import copy

import torch
from torch import nn

import graphgrow as gg


class Teaching(nn.Module):
    """A student beside its teacher, whose layer and scale are asked without gradient, and whose buffer takes a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(4, 6), nn.Linear(4, 6)
        self.scale = nn.Parameter(torch.full((6,), 0.5))
        self.head = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.student(x).relu()
        with torch.no_grad():
            wanted = self.teacher(x) * self.scale
            still = h * 2
            self.mean.mul_(0.9).add_(h.mean(0), alpha=0.1)
        return self.head(h * self.scale + wanted + still + self.mean)


def test_gradients_and_buffers_are_the_models_over_steps() -> None:
    torch.manual_seed(0)
    model, x = Teaching(), torch.randn(5, 4)
    graph = gg.trace(copy.deepcopy(model), x, way="fx")
    for _ in range(2):
        for module in (model, graph.module):
            module.zero_grad()
            module(x).square().sum().backward()
        wanted, found = (
            {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
            for module in (model, graph.module)
        )
        assert (
            wanted.keys() == found.keys() == dict(model.named_parameters()).keys() - {"teacher.weight", "teacher.bias"}
        )
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)
        kept, mine = model.get_buffer("mean"), graph.module.get_buffer("mean")
        assert torch.equal(kept, mine)
        assert not mine.requires_grad


def test_a_value_is_detached_once() -> None:
    """However many operators without gradient read it."""

    class Often(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return x.exp() + x.sin() * x.cos()

    nodes = gg.trace(Often(), torch.randn(2, 3), way="fx").module.graph.nodes
    assert [node.target for node in nodes].count("detach") == 1
