"""Which parameters stand near a node: nearest first, those in front before those behind."""

from __future__ import annotations

import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network.neighbours import near_parameters, new_parameters, parameters_of
from tests.rewrite.small_models import Forward


def graph() -> Graph:
    """a -> b -> (c, times a bare parameter) -> sum -> d; a table of whole numbers beside."""
    model = Forward(
        lambda m, x: m.d(m.c(m.b(m.a(x)).relu()) + m.b(m.a(x)) * m.bare),
        a=nn.Linear(3, 4), b=nn.Linear(4, 4, bias=False), c=nn.LayerNorm(4), d=nn.Linear(4, 2), bare=torch.randn(4),
    )  # fmt: skip
    return gg.trace(model, torch.randn(2, 3))


def names(found: Graph, site: str) -> list[str]:
    known = {id(p): name for name, p in found.module.named_parameters()}
    return [known[id(p)] for p in near_parameters(found.module, found.sites.find(site))]


def test_nearest_first_and_in_front_first() -> None:
    found = graph()
    near = list(dict.fromkeys(names(found, ":relu")))
    assert near == ["b.weight", "a.weight", "a.bias", "c.weight", "c.bias", "d.weight", "d.bias", "bare"]
    assert names(found, "c")[:2] == ["c.weight", "c.bias"], "a node's own come first"
    assert set(list(dict.fromkeys(names(found, ":mul")))[:2]) == {"bare", "b.weight"}
    assert names(found, "x")[:2] == ["a.weight", "a.bias"]


def test_a_node_is_visited_once() -> None:
    """A deep graph in which every value is read twice has 2^60 paths."""

    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            for _ in range(60):
                x = x.relu() + x.tanh()
            return x

    found = gg.trace(Doubling(), torch.randn(2, 3))
    assert names(found, ":add@60") == ["first.weight", "first.bias"]


def test_what_a_node_holds() -> None:
    found = graph()
    module = found.module
    assert parameters_of(module, found.sites.find("a")) == list(module.get_submodule("a").parameters())
    assert parameters_of(module, found.sites.find("bare")) == [module.get_parameter("bare")]
    assert parameters_of(module, found.sites.find(":relu")) == []
    assert parameters_of(module, found.sites.find("x")) == []
    nested = gg.trace(nn.Sequential(nn.LSTM(3, 4)), torch.randn(5, 2, 3)).module
    lstm = next(node for node in nested.graph.nodes if node.op == "call_module")
    assert len(parameters_of(nested, lstm)) == 4
    buffered = Forward(lambda m, x: m.a(x) + m.table, a=nn.Linear(3, 4))
    buffered.register_buffer("table", torch.randn(4))
    fetched = gg.trace(buffered, torch.randn(2, 3))
    assert parameters_of(fetched.module, fetched.sites.find("table")) == []


def test_what_is_new() -> None:
    before = graph()
    after = gg.apply(before, "deepen(b@2)")
    known = {id(p) for p in before.module.parameters()}
    found = list(new_parameters(after.module, known))
    mine = {id(p): name for name, p in after.module.named_parameters()}
    assert len(found) == len(after.steps[-1].touched)
    assert {mine[id(p)] for p, _ in found} == set(after.steps[-1].touched)
    assert all(mine[id(p)].startswith(str(node.target)) for p, node in found)
    assert list(new_parameters(after.module, {*known, *(id(p) for p, _ in found)})) == []


def test_whole_numbers_are_no_neighbours() -> None:
    model = Forward(lambda m, x: m.a(x) + m.table, a=nn.Linear(3, 4))
    model.table = nn.Parameter(torch.arange(4), requires_grad=False)
    found = gg.trace(model, torch.randn(2, 3))
    assert set(names(found, ":add")) == {"a.weight", "a.bias"}
