"""What a model that Dynamo recorded decided by sizes: the graph is asked in each call, and refuses or agrees."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import graphgrow as gg


class Deciding(nn.Module):
    """Five decisions by sizes; the last is of a kind that a graph cannot compute."""

    def __init__(self, root: bool = False) -> None:
        super().__init__()
        self.root = root
        self.up, self.down, self.table = nn.Linear(3, 6), nn.Linear(6, 2), nn.Parameter(torch.randn(30, 6))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.up(x)) + self.table[: x.shape[1]]
        if x.shape[1] > 20:
            h = h * 2
        if x.shape[0] % 4 == 0:
            h = h * 3
        if x.shape[0] == y.shape[0]:
            h = h + 1
        if x.shape[1] == 1:
            h = h - 1
        if self.root and int(x.shape[1] ** 0.5) == 2:
            h = h + 2
        result: torch.Tensor = self.down(h) + y.mean()
        return result


@functools.cache
def captured(root: bool = False) -> tuple[Deciding, gg.Graph]:
    torch.manual_seed(0)
    model = Deciding(root).eval()
    return model, gg.trace(model, (torch.randn(3, 7, 3), torch.randn(3, 2)), way="dynamo")


def test_other_sizes_give_what_the_model_gives_or_are_refused() -> None:
    model, graph = captured()
    grown = gg.apply(graph, "split(up, units=[1])")
    answered = set()
    for rows in (1, 2, 3, 4, 5, 8):
        for others in (rows, rows + 1):
            for length in (1, 2, 7, 20, 21, 30):
                x, y = torch.randn(rows, length, 3), torch.randn(others, 2)
                try:
                    found = graph.module(x, y)
                except ValueError as error:
                    assert "decides by the sizes" in str(error)  # noqa: PT017  # most sizes are answered
                    continue
                answered.add((rows, others, length))
                assert torch.equal(found, model(x, y)), (rows, others, length)
                assert torch.allclose(grown.module(x, y), found, atol=1e-5)
    assert {(1, 1, 7), (2, 2, 2), (3, 3, 20), (5, 5, 2)} <= answered
    assert {rows % 4 for rows, _, _ in answered} == {1, 2, 3}
    assert all(rows == others for rows, others, _ in answered)


@pytest.mark.parametrize(("rows", "others", "length", "line"), [(3, 3, 21, 24), (4, 4, 7, 26), (3, 2, 7, 28)])
def test_a_refusal_names_the_line(rows: int, others: int, length: int, line: int) -> None:
    with pytest.raises(ValueError, match=rf"at test_sizes.py:{line} the model decides by the sizes"):
        captured()[1].module(torch.randn(rows, length, 3), torch.randn(others, 2))


def test_a_size_by_which_something_is_decided_that_a_graph_cannot_compute_stays() -> None:
    _, graph = captured(root=True)
    assert "sizes that stay those of the example: x (axis 1, 2)" in graph.explain()
    with pytest.raises(ValueError, match=r"holds for x of shape \(any, 7, 3\), not \(3, 8, 3\)"):
        graph.module(torch.randn(3, 8, 3), torch.randn(3, 2))
