"""Equal graphs have no parting, whatever their nodes are called; others part at the first node that differs."""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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


def test_an_axis_that_is_made_is_one_long_and_that_of_an_input_is_as_long_as_it_is() -> None:
    class Made(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            first, second = x.unsqueeze(1).split((4, 2), dim=3)
            made = torch.unsqueeze(second, dim=-1).size(4) + first.shape[1] + second.size(-3)
            return x * made, x.unsqueeze(0).shape[1] + second.size(3) + first.size(2)

    graph = gg.trace(Made(), torch.randn(1, 5, 6))
    sizes = WeightSizes(graph)
    read = [node for node in graph.module.graph.nodes if isinstance(node.meta["value"], int) and node.users]
    found = {node.name: sizes.of(node) for node in read if node.target not in (operator.add, operator.mul)}
    assert list(found.values()) == [1, 1, 1, None, None, None]


def test_queries_that_share_one_head_grow_in_their_class() -> None:
    """As in GPT-BigCode, which counts the one head of its keys and values, on an axis that it makes for it."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.width, self.inner = 4, 3, 12
            self.qkv, self.out = nn.Linear(6, 18), nn.Linear(12, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).unsqueeze(1).split((self.inner, self.width, self.width), dim=3)
            q = q.view(*x.shape[:2], -1, self.width).transpose(1, 2)
            k, v = (t.expand(-1, self.heads, -1, -1).reshape(len(x), t.shape[1] * self.heads, -1, 3) for t in (k, v))
            attended = nn.functional.scaled_dot_product_attention(q, k, v)
            result: torch.Tensor = self.out(attended.transpose(1, 2).flatten(2))
            return result

    model: Any = Shared().eval()
    graph = gg.trace(model, torch.randn(2, 5, 6))
    result: Any = gg.to_model(gg.apply(graph, graph.mutations("add-heads")), model)
    assert (result.heads, result.inner, result.width) == (5, 15, 3)
    x = torch.randn(3, 4, 6)
    assert torch.allclose(result(x), model(x), atol=1e-6)


class Halving(nn.Module):
    """Decides by the dtype of what it has worked out, as Whisper's encoder layers do, and is a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.down(F.gelu(self.up(x)))
        if x.dtype == torch.float16:
            x = x.clamp(-60000, 60000)
        return x


def test_what_a_layer_decides_behind_its_result_is_its_own() -> None:
    """The copy of one has no check of the dtype there, which the class has."""
    model: Any = nn.Sequential(nn.Sequential(Halving(), Halving()))
    x = torch.randn(5, 3)
    graph = gg.trace(model, x)
    for site in ("0.0", "0.1"):
        result: Any = gg.to_model(gg.apply(graph, f"deepen({site}, kind=copy)"), model)
        assert len(result[0]) == 3
        assert torch.allclose(result(x), model(x))


class Positions(nn.Module):
    """Refuses more tokens than it has positions, as SigLIP's text model does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place, self.head = nn.Embedding(11, 4), nn.Embedding(6, 4), nn.Linear(4, 11)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        if length > self.place.weight.shape[0]:
            raise ValueError("too long")
        result: torch.Tensor = self.head(self.embed(tokens) + self.place(torch.arange(length)))
        return result


def test_what_the_class_decides_by_a_size_that_grew_it_decides_as_the_model_did() -> None:
    """Growth takes the check away, and the class has it again, by the new size."""
    model: Any = Positions().eval()
    tokens, others = torch.randint(0, 11, (2, 5)), torch.randint(0, 11, (3, 8))
    grown = gg.apply(gg.trace(model, tokens), "grow-positions(place, extra=2)")
    result: Any = gg.to_model(grown, model)
    assert torch.allclose(result(tokens), model(tokens))
    assert result(others).shape == (3, 8, 11)
    with pytest.raises(ValueError, match="too long"):
        result(torch.zeros(1, 9, dtype=torch.long))
