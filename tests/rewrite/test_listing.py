"""What was listed means the nodes that it was listed for, whatever others of the list have renamed by then."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.layers import Choice
from graphgrow.rewrite.text import parse_mutation


class Thrice(nn.Module):
    """One activation that is called three times, so that the second and third calls are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.first, self.second, self.head = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.act(self.first(self.act(x)))
        result: torch.Tensor = self.head(self.act(self.second(hidden)))
        return result


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(0)
    return gg.trace(Thrice().double(), torch.randn(2, 3, dtype=torch.float64))


@pytest.fixture
def opened(graph: Graph) -> Graph:
    """Three choices, closed on another operator each, so that a wrong one would be seen."""
    mixed = gg.apply(graph, [f"mix-operators({site}, choices=[gelu, silu])" for site in ("act", "act@2", "act@3")])
    choices = [part for part in mixed.module.modules() if isinstance(part, Choice)]
    for place, choice in zip((1, 0, 2), choices, strict=True):
        choice.close(place)
    return mixed


def _kinds(graph: Graph) -> list[str]:
    """The activations, in the order in which they are called."""
    modules = dict(graph.module.named_modules())
    called = [modules[str(node.target)] for node in graph.module.graph.nodes if node.op == "call_module"]
    return [type(part).__name__ for part in called if not isinstance(part, nn.Linear)]


def test_a_whole_list_of_settlements_settles_each_where_it_was_listed(opened: Graph) -> None:
    settlements = list(opened.mutations("settle-operators"))
    assert [str(one) for one in settlements] == [
        "settle-operators(act, keep=gelu)",
        "settle-operators(act@2)",
        "settle-operators(act@3, keep=silu)",
    ]
    settled = gg.apply(opened, settlements)
    assert _kinds(settled) == ["GELU", "ReLU", "SiLU"]
    x = torch.randn(7, 3, dtype=torch.float64)
    assert torch.equal(settled.module(x), opened.module(x))
    # the ledger holds the names that the calls had when they were settled
    assert [entry.mutation for entry in settled.ledger.entries[-3:]] == [
        "settle-operators(act, keep=gelu)",
        "settle-operators(act)",
        "settle-operators(act@2, keep=silu)",
    ]
    replayed = gg.apply(opened, [entry.mutation for entry in settled.ledger.entries[-3:]])
    assert replayed.text() == settled.text()


def test_one_after_the_other_as_well_in_any_order(opened: Graph) -> None:
    settlements = list(opened.mutations("settle-operators"))
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        settled = opened
        for place in order:
            settled = gg.apply(settled, settlements[place])
        assert _kinds(settled) == ["GELU", "ReLU", "SiLU"]


def test_the_cost_of_a_whole_list_is_that_of_what_would_be_applied(opened: Graph) -> None:
    settlements = list(opened.mutations("settle-operators"))
    assert opened.cost(settlements).parameters == gg.apply(opened, settlements).parameter_count - opened.parameter_count


def test_written_names_are_those_of_the_graph_that_they_come_to(opened: Graph) -> None:
    settled = gg.apply(opened, "settle-operators(act, keep=gelu)")
    with pytest.raises(gg.Declined, match="the strongest, silu, has a weight of 1, and keep=present"):
        gg.apply(settled, "settle-operators(act@2)")  # the third call, once the first is a GELU


def test_the_error_of_a_written_list_says_what_its_sites_are_called_by_now(opened: Graph) -> None:
    texts = [str(one) for one in opened.mutations("settle-operators")]
    with pytest.raises(
        gg.Declined, match=r"keep=present.*; those in front .*: what was `act@2` is `act` by now\. Write"
    ):
        gg.apply(opened, texts)
    with pytest.raises(gg.MutationError, match=r"no site `act@3`.*what was `act@3` is `act@2` by now"):
        gg.apply(opened, [texts[0], texts[2]])
    by_then = [texts[0], "settle-operators(act)", "settle-operators(act@2, keep=silu)"]
    assert _kinds(gg.apply(opened, by_then)) == ["GELU", "ReLU", "SiLU"]
    with pytest.raises(gg.MutationError) as unmoved:
        gg.apply(opened, [texts[0], "widen(nothing, extra=1)"])
    assert "moved" not in str(unmoved.value)


def test_where_its_node_is_gone_no_other_is_taken_in_its_place() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.ReLU(), nn.Linear(4, 2))
    model.append(model[1])
    graph = gg.trace(model, torch.randn(2, 3))
    (first, second) = graph.mutations("drop-identity")
    assert (str(first), str(second)) == ("drop-identity(1)", "drop-identity(1@2)")
    fewer = gg.apply(graph, first)
    with pytest.raises(
        gg.MutationError, match="the `1` that it was listed for is gone, and another site has that name"
    ):
        gg.apply(fewer, first)
    assert not fewer.sites.named("1@2")
    assert len(gg.apply(fewer, second).module.graph.nodes) == len(graph.module.graph.nodes) - 2


def test_of_another_graph_the_names_alone_are_taken(graph: Graph, opened: Graph) -> None:
    """Two captures of one model have the same names; none has grown from the other."""
    (swap, *_) = (one for one in graph.mutations("swap-activation") if one.site_name == "act@2")
    other = gg.trace(Thrice().double(), torch.randn(2, 3, dtype=torch.float64))
    assert gg.apply(other, ["deepen(first, kind=mlp)", swap]).ledger.entries[-1].mutation == str(swap)


def test_it_is_no_part_of_a_mutation(graph: Graph) -> None:
    (found, *_) = graph.mutations("swap-activation")
    written = parse_mutation(str(found))
    assert found == written
    assert hash(found) == hash(written)
    for copied in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert copied == found
        assert vars(copied) == vars(written)
