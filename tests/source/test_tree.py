"""Which modules of a graph hold others, and how code reaches what is below them."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from graphgrow.source.layout import one_line
from graphgrow.source.tree import Tree, is_channels_last


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.size = 3
        self.inner = nn.Linear(3, 3)
        self.act = nn.Sequential(nn.ReLU())


def graph_module() -> fx.GraphModule:
    """Calls 0, parts.1, parts.0.norm, block.inner, block.act and its content; fetches block.shift and a-b.weight."""
    root = nn.Module()
    parts, first, named = nn.Module(), nn.Module(), nn.Module()
    first.norm = nn.LayerNorm(3)
    parts.add_module("0", first)
    parts.add_module("1", nn.Linear(3, 3))
    block = Block()
    block.shift = nn.Parameter(torch.zeros(3))
    named.weight = nn.Parameter(torch.zeros(3))
    for name, module in {"0": nn.ReLU(), "parts": parts, "block": block, "a-b": named}.items():
        root.add_module(name, module)
    graph = fx.Graph()
    value = graph.placeholder("x")
    for target in ("0", "parts.1", "parts.0.norm", "block.inner", "block.act", "block.act.0"):
        value = graph.call_module(target, (value,))
    for target in ("block.shift", "a-b.weight"):
        value = graph.call_function(torch.add, (value, graph.get_attr(target)))
    graph.output(value)
    return fx.GraphModule(root, graph)


@pytest.fixture
def tree() -> Tree:
    module = graph_module()
    module.block = Block()  # with what its class makes, as passes put it in
    module.block.shift = nn.Parameter(torch.zeros(3))
    return Tree(module)


def test_holders_are_what_the_graph_only_passes_through(tree: Tree) -> None:
    assert tree.holder_names() == {"", "parts", "parts.0", "block", "a-b"}
    assert {".".join(path) for path, _ in tree.parts()} == {
        "0", "parts.1", "parts.0.norm", "block.inner", "block.act",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("0", "self[0]"),
        ("parts.1.weight", "self.parts[1].weight"),
        ("parts.0.norm", "self.parts[0].norm"),
        ("block.act.0.inplace", "self.block.act[0].inplace"),
        ("a-b.weight", 'getattr(self, "a-b").weight'),
    ],
)
def test_paths_are_written_as_python(tree: Tree, path: str, text: str) -> None:
    assert one_line(tree.access(path.split("."))) == text
    assert one_line(tree.access(path.split("."), "net")) == text.replace("self", "net")


def test_lists_are_numbered_in_order_and_hold_nothing_else(tree: Tree) -> None:
    parts = tree.root.get_submodule("parts")
    assert list(parts._modules) == ["1", "0"]  # fx adds what lies deeper last
    assert not tree.is_list(parts)
    parts._modules["1"] = parts._modules.pop("1")
    assert tree.is_list(parts)
    assert not tree.is_list(tree.root.get_submodule("block"))


def test_only_fetched_attributes_count(tree: Tree) -> None:
    assert tree.attributes(tree.root.get_submodule("block"), "block") == {}


def test_channels_last() -> None:
    plain = torch.zeros(2, 3, 4, 4)
    assert is_channels_last(plain.to(memory_format=torch.channels_last))
    assert not is_channels_last(plain)
    assert not is_channels_last(torch.zeros(2, 3, 1, 1))
    assert not is_channels_last(torch.zeros(3, 2).t())
