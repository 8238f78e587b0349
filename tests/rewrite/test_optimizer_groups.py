"""The parameters of an optimizer follow a growth: who joins, which group, under which name, and who is let go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from tests.rewrite.optimizers import INPUT, MAKERS, backward, everything, net, stepped


def _ids(optimizer: Optimizer) -> list[int]:
    return [id(p) for group in optimizer.param_groups for p in group["params"]]


def _names(graph: Graph, parameters: Any) -> set[str]:
    known = {id(p): name for name, p in graph.module.named_parameters()}
    return {known[id(p)] for p in parameters}


CHAIN = [
    "deepen(1, kind=mlp)",
    "widen(1_deepen.linear1, extra=2)",
    "deepen(3, kind=identity)",
    "split(1_deepen.linear1, units=[0])",
    "widen(0, extra=1)",
    "swap-activation(3, to=prelu)",
    "add-branch(2, kind=low-rank)",
]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_optimizer_has_exactly_the_childs_parameters(kind: str, share: bool) -> None:
    """Through a list in which new parameters are themselves replaced."""
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, kind)
    grown = gg.apply(graph, CHAIN, seed=2, optimizer=optimizer, share=share)
    found = _ids(optimizer)
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in grown.module.parameters()}
    assert {id(p) for p in optimizer.state} <= set(found)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    before = {name: p.detach().clone() for name, p in grown.module.named_parameters()}
    for _ in range(2):
        backward(grown.module)
        optimizer.step()
    still = {name for name, p in grown.module.named_parameters() if torch.equal(p, before[name])}
    assert still == set()


def test_new_parameters_join_the_group_of_the_nearest() -> None:
    """Those that stand in front are nearer than those behind; a block goes with what its site is made by."""
    graph = gg.trace(net(), INPUT)
    first = [p for name, p in graph.module.named_parameters() if name.startswith("0.")]
    others = [p for name, p in graph.module.named_parameters() if not name.startswith("0.")]
    slow: dict[str, Any] = {"params": first, "lr": 0.001, "weight_decay": 0.5}
    fast: dict[str, Any] = {"params": others}
    optimizer = torch.optim.AdamW([slow, fast], lr=0.1)
    backward(graph.module)
    optimizer.step()
    lists = [group["params"] for group in optimizer.param_groups]
    grown = gg.apply(graph, ["deepen(1, kind=mlp)", "deepen(3, kind=mlp)", "deepen(0, kind=identity)"],
                     optimizer=optimizer)  # fmt: skip
    assert all(group["params"] is params for group, params in zip(optimizer.param_groups, lists, strict=True))
    names = [_names(grown, params) for params in lists]
    assert {name.partition(".")[0] for name in names[0]} == {"0", "1_deepen", "0_deepen"}
    assert {name.partition(".")[0] for name in names[1]} == {"2", "4", "3_deepen"}
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.001, 0.5), (0.1, 0.01)]
    fresh = [p for name, p in grown.module.named_parameters() if "deepen" in name]
    assert not any(p in optimizer.state for p in fresh), "no state: their step count begins at one"
    backward(grown.module)
    optimizer.step()
    assert {int(optimizer.state[p]["step"]) for p in fresh if p.grad is not None} == {1}
    assert {int(optimizer.state[p]["step"]) for p in (*first, *others)} == {2}


def test_a_new_parameter_stands_beside_one_that_is_trained() -> None:
    """With a frozen body, the nearest that the optimizer trains is the head."""
    graph = gg.trace(net(), INPUT)
    head = [p for name, p in graph.module.named_parameters() if name.startswith("4.")]
    optimizer = torch.optim.SGD(head, lr=0.1, momentum=0.9)
    grown = gg.apply(graph, "deepen(1, kind=mlp)", optimizer=optimizer)
    found = _names(grown, optimizer.param_groups[0]["params"])
    assert {name.partition(".")[0] for name in found} == {"4", "1_deepen"}


def test_a_new_parameter_between_an_input_and_no_map_joins_those_beside_it() -> None:
    """The router of new experts reads an input, and what it is read by has no parameters."""

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.left(x) @ self.right(y).T)

    torch.manual_seed(0)
    graph = gg.trace(Towers().double(), (INPUT, INPUT))
    optimizer = MAKERS["adam"](graph.module.parameters())
    grown = gg.apply(graph, "upcycle-experts(right)", optimizer=optimizer)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in grown.module.parameters()}


@pytest.mark.parametrize("mutation", ["deepen(1, kind=mlp)", "widen(0, extra=2)"])
def test_an_optimizer_of_something_else_is_refused(mutation: str) -> None:
    graph = gg.trace(net(), INPUT)
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    before = everything(optimizer)
    with pytest.raises(gg.OptimizerError, match=r"trains none of the parameters of this graph.*; make it from"):
        gg.apply(graph, mutation, optimizer=optimizer)
    assert everything(optimizer) == before


def test_an_optimizer_that_trains_nothing_any_more_has_no_place_for_what_is_new() -> None:
    graph = gg.apply(gg.trace(net(), INPUT), "deepen(1, kind=mlp)")
    block = [p for name, p in graph.module.named_parameters() if "deepen" in name]
    optimizer = torch.optim.SGD(block, lr=0.1)
    before = everything(optimizer)
    with pytest.raises(gg.OptimizerError, match=r"trains no parameter that a new one could stand beside; make it from"):
        gg.apply(graph, ["drop-branch(1_deepen:add)", "deepen(1, kind=mlp)"], optimizer=optimizer)
    assert everything(optimizer) == before


@dataclass(frozen=True)
class Bypass(Mutation):
    """Take a module out: what read it reads its input. (No pass does so much; it is here to let parameters go.)"""

    site: str
    name: ClassVar[str] = "bypass"
    summary: ClassVar[str] = "take a module out"

    @classmethod
    def sites(cls, network: Network) -> Iterator[Mutation | Refusal]:
        """None."""
        return iter(())

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Take it out."""
        node = editor.node(network.sites.find(self.site).name)
        node.replace_all_uses_with(node.all_input_nodes[0])
        editor.module.graph.erase_node(node)
        editor.module.delete_submodule(str(node.target))
        return Step(), []


def test_parameters_that_are_gone_are_let_go() -> None:
    """Those of the parent, with their state, and those that came and went within one list."""
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, "adam")
    gone = list(graph.module.get_submodule("2").parameters())
    kept = [p for p in graph.module.parameters() if all(p is not q for q in gone)]
    moments = [optimizer.state[p]["exp_avg"].clone() for p in kept]
    grown = gg.apply(
        graph, ["deepen(3, kind=identity)", Bypass("3_deepen.activation"), Bypass("2")], optimizer=optimizer
    )
    assert set(_ids(optimizer)) == {id(p) for p in grown.module.parameters()}
    assert not any(p in optimizer.state for p in gone)
    assert all(torch.equal(optimizer.state[p]["exp_avg"], m) for p, m in zip(kept, moments, strict=True))
    backward(grown.module)
    optimizer.step()


def test_a_replaced_parameter_that_is_gone_later_is_let_go() -> None:
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, "adam")
    grown = gg.apply(graph, ["split(2)", "split(0)", Bypass("3")], optimizer=optimizer)
    assert set(_ids(optimizer)) == {id(p) for p in grown.module.parameters()}
    square = gg.apply(grown, ["deepen(1, kind=identity)", "split(1_deepen.linear)"], optimizer=optimizer)
    assert set(_ids(optimizer)) == {id(p) for p in square.module.parameters()}
    assert len(optimizer.state) == len(list(graph.module.parameters()))


def test_a_list_that_fails_leaves_newcomers_out() -> None:
    graph = gg.trace(net(), INPUT)
    optimizer, _ = stepped(graph, "adamw")
    before = everything(optimizer)
    for broken in ("deepen(nowhere)", "deepen(1, kind=conv)", "deepen(1, kind=attention)"):
        with pytest.raises(gg.GraphGrowError):
            gg.apply(
                graph,
                ["deepen(1, kind=mlp)", "split(1_deepen.linear1)", Bypass("2"), broken],
                optimizer=optimizer,
                share=False,
            )
        assert everything(optimizer) == before


def test_tied_parameters_join_once() -> None:
    """A copied block keeps its inner tie, and what is tied to the outside is there already."""
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    block[2].weight = block[0].weight
    model = nn.Sequential(nn.Linear(3, 3), block, nn.Linear(3, 1)).double()
    model[2].bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    model[0].bias = block[0].bias
    graph = gg.trace(model, INPUT)
    optimizer = torch.optim.SGD(graph.module.parameters(), lr=0.1)
    grown = gg.apply(graph, "deepen(1, kind=copy)", optimizer=optimizer)
    found = _ids(optimizer)
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in grown.module.parameters()}
    new = {name for name, _ in grown.module.named_parameters()} - {name for name, _ in graph.module.named_parameters()}
    assert new == {"1_deepen.0.weight", "1_deepen.2.bias", "1_deepen_gate.gate.gate"}


def test_an_optimizer_of_named_parameters_keeps_its_names() -> None:
    """Old parameters by the names that the user gave them, new ones by the graph's; those that are gone are no more."""
    graph = gg.trace(net(), INPUT)
    optimizer = torch.optim.Adam([(f"net.{name}", p) for name, p in graph.module.named_parameters()], lr=0.1)
    backward(graph.module)
    optimizer.step()
    grown = gg.apply(graph, ["widen(0, extra=1)", "deepen(3, kind=identity)"], optimizer=optimizer)
    (group,) = optimizer.param_groups
    new = ["3_deepen.linear.weight", "3_deepen.linear.bias", "3_deepen.activation.weight"]
    old = [name for name, _ in graph.module.named_parameters()]
    assert group["param_names"] == [*(f"net.{name}" for name in old), *new]
    assert [id(p) for p in group["params"]] == [id(grown.module.get_parameter(name)) for name in (*old, *new)]
    bare = gg.apply(grown, Bypass("3_deepen.activation"), optimizer=optimizer)
    assert group["param_names"] == [*(f"net.{name}" for name in old), *new[:2]]
    assert set(_ids(optimizer)) == {id(p) for p in bare.module.parameters()}
    again = torch.optim.Adam(bare.module.named_parameters(), lr=0.2)
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["lr"] == 0.1
