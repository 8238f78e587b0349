"""Site names: module paths, `@n` for the n-th call, operators by the module they stand in."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network.sites import Sites, scope_of
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward


def residual(m: Any, x: Any) -> Any:
    return F.relu(x + m.conv2(m.relu(m.conv1(x))))


def block() -> nn.Module:
    return Forward(residual, conv1=nn.Conv2d(4, 4, 3, padding=1), conv2=nn.Conv2d(4, 4, 3, padding=1), relu=nn.ReLU())


class Net(nn.Module):
    """Nested blocks, a module called three times, a block called twice, operators at the root, bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.layer1 = nn.Sequential(OrderedDict([("0", block()), ("1", block())]))
        self.twice, self.scale = block(), nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.layer1(self.relu(self.stem(x))))
        x = torch.relu(self.twice(x)) + self.twice(x + y)
        x = self.relu(x * self.scale).mean((2, 3)) + 0.5
        result: torch.Tensor = self.head(x)
        return result


def graph() -> Graph:
    return gg.trace(Net(), (torch.randn(2, 3, 8, 8), torch.randn(2, 4, 6, 6)))


# name -> the names of what it reads
READS = {
    "stem": ["x"],
    "relu": ["stem"],
    "layer1.0.conv1": ["relu"],
    "layer1.0.relu": ["layer1.0.conv1"],
    "layer1.0.conv2": ["layer1.0.relu"],
    "layer1.0:add": ["relu", "layer1.0.conv2"],
    "layer1.0:relu": ["layer1.0:add"],
    "layer1.1.conv1": ["layer1.0:relu"],
    "layer1.1:add": ["layer1.0:relu", "layer1.1.conv2"],
    "relu@2": ["layer1.1:relu"],
    "twice.conv1": ["relu@2"],
    "twice:add": ["relu@2", "twice.conv2"],
    ":relu": ["twice:relu"],
    ":add": ["relu@2", "y"],
    "twice.conv1@2": [":add"],
    "twice:add@2": [":add", "twice.conv2@2"],
    ":add@2": [":relu", "twice:relu@2"],
    ":mul": [":add@2", "scale"],
    "relu@3": [":mul"],
    ":mean": ["relu@3"],
    ":add@3": [":mean"],
    "head": [":add@3"],
}


def test_every_kind_of_name() -> None:
    sites = graph().sites
    for name, read in READS.items():
        node = sites.find(name)
        assert sites.name(node) == name
        assert [sites.name(used) for used in node.all_input_nodes] == read, name


def test_a_module_that_holds_others_is_the_node_that_leaves_it() -> None:
    sites = graph().sites
    assert sites.find("layer1.0") is sites.find("layer1.0:relu")
    assert sites.find("layer1") is sites.find("layer1.1") is sites.find("layer1.1:relu")


def test_names_are_one_to_one() -> None:
    found = graph()
    nodes = [node for node in found.module.graph.nodes if node.op != "output"]
    names = [found.sites.name(node) for node in nodes]
    assert len(set(names)) == len(nodes)
    assert [found.sites.find(name) for name in names] == nodes
    assert [found.sites.position(node) for node in nodes] == list(range(len(nodes)))


def test_the_containers_of_a_node_innermost_first() -> None:
    sites = graph().sites
    assert sites.containers(sites.find("layer1.1:relu")) == ["layer1.1", "layer1"]
    assert sites.containers(sites.find("layer1.0:relu")) == ["layer1.0"]
    assert sites.containers(sites.find("layer1.0:add")) == []
    assert sites.containers(sites.find("stem")) == [], "a leaf is no container"
    assert sites.containers(sites.find("twice:relu")) == [], "two values leave it"


def test_scopes() -> None:
    sites = graph().sites
    assert scope_of(sites.find("layer1.0:add")) == "layer1.0"
    assert scope_of(sites.find(":mul")) == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer1.0.conv3", r"there is no site `layer1\.0\.conv3`; did you mean 'layer1\.0\.conv\d' or "),
        ("layer1.2", r"there is no site `layer1\.2`; did you mean 'layer1\.\d' or 'layer1\.\d'"),
        ("relu@4", r"there is no site `relu@4`; did you mean 'relu"),
        ("nothing like it", r"there is no site `nothing like it`; see graph\.mutations\(\) or graph\.text\(\)"),
        ("relu_1", r"there is no site `relu_1`"),
        ("twice", r"several values leave `twice`: `twice:relu`, `twice:relu@2`; name one of them"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(name: str, message: str) -> None:
    with pytest.raises(gg.MutationError, match=message):
        graph().sites.find(name)
    with pytest.raises(gg.MutationError, match=message):
        gg.apply(graph(), f"deepen({name}, kind=conv)")


def test_names_do_not_move_when_something_is_put_in() -> None:
    """What an inserted block holds has names of its own, so that old names go on to mean what they meant."""
    before = graph()
    after = gg.apply(before, ["deepen(layer1.0, kind=copy)", "deepen(:add, kind=conv)", "deepen(relu@2, kind=conv)"])
    kept = {node.name for node in before.module.graph.nodes}
    names = {after.sites.name(n): n.name for n in after.module.graph.nodes if n.op != "output"}
    for node in before.module.graph.nodes:
        if node.op != "output":
            assert names[before.sites.name(node)] == node.name
    assert {name for name, fx_name in names.items() if fx_name not in kept} == {
        "layer1.0_deepen.conv1", "layer1.0_deepen.relu", "layer1.0_deepen.conv2", "layer1.0_deepen:add",
        "layer1.0_deepen:relu", "add_deepen.conv1", "add_deepen.norm", "add_deepen.activation", "add_deepen.conv2",
        "add_deepen:add", "relu_2_deepen.conv1", "relu_2_deepen.norm", "relu_2_deepen.activation",
        "relu_2_deepen.conv2", "relu_2_deepen:add",
    }  # fmt: skip


def test_what_stands_behind_a_call_does_not_stand_in_it() -> None:
    """A block behind the second call of a module is not a part of the module."""
    after = gg.apply(graph(), "deepen(relu@2, kind=conv)")
    assert scope_of(after.sites.find("relu_2_deepen:add")) == "relu_2_deepen"
    assert after.sites.containers(after.sites.find("relu_2_deepen:add")) == ["relu_2_deepen"]
    inside = gg.apply(graph(), "deepen(twice.conv1@2, kind=conv)")
    assert [path for path, _ in inside.sites.find("twice.conv1_2_deepen:add").meta["nn_module_stack"].values()] == [
        "twice", "twice.conv1_2_deepen",
    ]  # fmt: skip


def test_a_dead_node_has_a_name_and_no_container() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.b(x)
            result: torch.Tensor = self.a(x)
            return result

    module = gg.trace(Dead(), torch.randn(2, 3)).module
    sites = Sites(module)
    assert sites.containers(sites.find("b.0")) == []
    with pytest.raises(gg.MutationError, match="there is no site `b`"):
        sites.find("b")


def test_an_input_gives_way_to_the_module_of_its_name() -> None:
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 4))
            self.x = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.x(x) + self.time(time[:, None] * torch.arange(4.0))
            return result

    found = gg.trace(Timed(), (torch.randn(3, 4), torch.tensor([1, 2, 3])))
    assert found.sites.name(found.sites.find("x")) == "x"
    assert found.sites.find("x").op == "call_module"
    assert found.sites.find(":x").op == found.sites.find(":time").op == "placeholder"
    assert found.sites.find("time") is found.sites.find("time.2")
    assert_preserved(found, gg.apply(found, "upcycle-experts(time)"))
