"""Equal graphs have no parting, whatever their nodes are called; others part at the first node that differs."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.own_class.parting import WeightSizes, parting


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.power = 2, 2.0
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x)) ** self.power
        y = y.view(y.shape[0], self.rows, -1).transpose(1, 2)
        return self.last(y.reshape(y.shape[0], y.shape[1] * y.shape[2]))


X = torch.randn(5, 4)


def traced(change: Callable[[Net], object] = lambda model: None) -> gg.Graph:
    torch.manual_seed(0)
    model = Net()
    change(model)
    return gg.trace(model, X)


def test_equal_graphs_do_not_part() -> None:
    graph = traced()
    assert parting(graph.module, traced()) is None
    other = copy.deepcopy(traced())
    for node in other.module.graph.nodes:
        node.name = f"renamed_{node.name}"
    assert parting(graph.module, gg.Graph(other.module, other.inputs)) is None


@pytest.mark.parametrize(
    ("change", "node", "how"),
    [
        (lambda m: setattr(m.norm, "eps", 1e-6), "norm", "its `eps` is 1e-06 in the class, not 1e-05"),
        (lambda m: setattr(m, "rows", 3), "view", "the class gives it 3, not 2"),
        (lambda m: setattr(m, "power", 3.0), "pow_1", "the class gives it 3.0, not 2.0"),
        (lambda m: setattr(m, "norm", nn.RMSNorm(6)), "norm", "the class has a RMSNorm there, not a LayerNorm"),
        (lambda m: nn.init.zeros_(m.first.bias), "first", "its `bias` has other values in the class"),
        (lambda m: setattr(m, "last", nn.Linear(6, 4)), "last", "its `out_features` is 4 in the class, not 3"),
    ],
)
def test_the_first_difference_is_named(change: Callable[[Net], object], node: str, how: str) -> None:
    found = parting(traced().module, traced(change))
    assert found is not None
    assert found[0] == node
    assert re.search(how, found[1])


def test_one_value_for_two_is_another_graph() -> None:
    """Two draws of noise are not the same one twice."""

    class Noise(nn.Module):
        def __init__(self, twice: bool) -> None:
            super().__init__()
            self.twice = twice

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = nn.functional.dropout(x, 0.5)
            return y + (nn.functional.dropout(x, 0.5) if self.twice else y)

    one, two = (gg.trace(Noise(twice), X) for twice in (False, True))
    assert parting(one.module, two) is not None
    assert parting(two.module, one) is not None


def test_sizes_of_weights_are_numbers_and_those_of_inputs_are_not() -> None:
    graph = traced()
    sizes = WeightSizes(graph)
    known = {node.name: sizes.of(node) for node in graph.module.graph.nodes if isinstance(node.meta["value"], int)}
    assert [value for name, value in known.items() if name.startswith("mul")] == [6]  # 3 x 2, whatever the batch
    batches = [node for node in graph.module.graph.nodes if node.name in known and node.meta["value"] == len(X)]
    assert len(batches) == 2
    assert all(known[node.name] is None for node in batches)
