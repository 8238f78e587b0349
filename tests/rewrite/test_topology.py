"""The networkx view, paths and dominators, against graphs drawn by hand."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch
from torch import fx, nn

import graphgrow as gg
from graphgrow.rewrite.topology import VIRTUAL_ROOT, dominators, reaches, to_networkx
from tests.rewrite.small_models import Forward

# x -> a -> relu -----> add -> mul -> head -> output
#              \-> b --/     p --/


def residual() -> gg.Graph:
    model = Forward(
        lambda m, x: m.head(m.inner(m.a(x).relu()) * m.p),
        a=nn.Linear(3, 4),
        inner=Forward(lambda m, h: h + m.b(h), b=nn.Linear(4, 4)),
        head=nn.Linear(4, 2),
        p=torch.randn(4),
    )
    return gg.trace(model, torch.randn(5, 3))


class TwoInputs(nn.Module):
    """Both inputs meet in `mixed`; the second alone is read again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.mixed = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        result: torch.Tensor = self.mixed(self.left(x) + self.right(y)) * scale + y
        return result


class Sizes(nn.Module):
    """A size of the input is read far behind it, and a constant is made from it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.b(self.a(x).view(x.shape[0], 2, 3) + torch.arange(x.shape[0]).view(-1, 1, 1))
        return result


def test_nodes_and_edges_are_those_of_the_graph() -> None:
    graph = residual().to_networkx()
    assert isinstance(graph, nx.DiGraph)
    assert list(graph) == ["x", "a", "relu", "inner_b", "add", "p", "mul", "head", "output"]
    assert set(graph.edges) == {
        ("x", "a"),
        ("a", "relu"),
        ("relu", "inner_b"),
        ("relu", "add"),
        ("inner_b", "add"),
        ("add", "mul"),
        ("p", "mul"),
        ("mul", "head"),
        ("head", "output"),
    }
    assert nx.is_directed_acyclic_graph(graph)


def test_what_each_node_carries() -> None:
    nodes = residual().to_networkx().nodes
    expected: dict[str, dict[str, Any]] = {
        "x": {"op": "placeholder", "target": "x", "path": None, "shape": (5, 3), "parameters": 0, "flops": 0},
        "relu": {"op": "call_method", "target": "relu", "path": None, "shape": (5, 4), "parameters": 0, "flops": 0},
        "inner_b": {
            "op": "call_module",
            "target": "inner.b",
            "path": "inner.b",
            "shape": (5, 4),
            "parameters": 20,
            "flops": 2 * 4 * 4,
        },
        "add": {"op": "call_function", "target": "add", "path": "inner", "shape": (5, 4), "parameters": 0, "flops": 0},
        "p": {"op": "get_attr", "target": "p", "path": None, "shape": (4,), "parameters": 4, "flops": 0},
    }
    assert {name: nodes[name] for name in expected} == expected
    graph = gg.trace("graphgrow:vit")
    attention = graph.to_networkx().nodes["scaled_dot_product_attention"]
    assert attention["path"] == "blocks.0.attention"
    assert graph.to_networkx().nodes["chunk"]["shape"] is None  # three tensors


def test_a_model_whose_flops_cannot_be_counted_has_none() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Unflatten(0, (2, 2)))
    graph = to_networkx(gg.trace(model, torch.randn(4, 6)))
    assert [graph.nodes[name]["parameters"] for name in ("_0", "_1")] == [42, 0]
    assert {data["flops"] for data in graph.nodes.values()} == {None}


def test_reaches_follows_the_arrows_only() -> None:
    graph = residual()
    assert reaches(graph, "x", "output")
    assert reaches(graph, "relu", "add")
    assert reaches(graph, "inner_b", "mul")
    assert reaches(graph, "add", "add")
    assert not reaches(graph, "add", "inner_b")
    assert not reaches(graph, "p", "add")
    assert not reaches(graph, "add", "p")
    with pytest.raises(gg.MutationError, match="no node `inner_c`; did you mean 'inner_b'"):
        reaches(graph, "inner_c", "add")


def test_a_residual_block_is_dominated_by_what_stands_in_front_of_it() -> None:
    assert dominators(residual()) == {
        "a": "x",
        "relu": "a",
        "inner_b": "relu",
        "add": "relu",
        "mul": "add",
        "head": "mul",
        "output": "head",
    }


def test_several_inputs_are_dominated_by_the_virtual_root() -> None:
    graph = gg.trace(TwoInputs(), (torch.randn(2, 3), torch.randn(2, 2), 3.0))
    found = dominators(graph)
    names = {"left": "x", "right": "y", "add": VIRTUAL_ROOT, "mixed": "add", "mul": "mixed", "add_1": VIRTUAL_ROOT}
    assert found == {"x": VIRTUAL_ROOT, "y": VIRTUAL_ROOT, **names, "output": "add_1"}


def test_a_size_read_far_behind_is_no_way_around() -> None:
    graph = gg.trace(Sizes(), torch.randn(4, 6))
    found = dominators(graph)
    assert (found["view"], found["add"], found["b"]) == ("a", "view", "add")
    assert "arange" not in found
    assert reaches(graph, "x", "arange")


def reached(graph: gg.Graph, removed: fx.Node | None) -> set[fx.Node]:
    """The nodes to which tensors flow from the input when one node is taken out."""
    pending = [node for node in graph.module.graph.nodes if node.op == "placeholder" and node is not removed]
    seen = set(pending)
    while pending:
        node = pending.pop()
        carries = not isinstance(node.meta["value"], (int, torch.Size))
        following = {user for user in node.users if carries and user is not removed} - seen
        seen |= following
        pending.extend(following)
    return seen


@pytest.mark.parametrize("name", ["unet", "densenet", "vit", "gpt"])
def test_the_immediate_dominator_is_the_last_node_without_which_nothing_arrives(name: str) -> None:
    graph = gg.trace(f"graphgrow:{name}")
    found = dominators(graph)
    everything = reached(graph, None)
    expected = {}
    for node in graph.module.graph.nodes:  # in order, so that later dominators replace earlier ones
        lost = everything - reached(graph, node) - {node}
        expected.update({other.name: node.name for other in lost})
    assert found == expected
