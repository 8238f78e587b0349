"""Closing a block is a proof. Each block here is copied behind itself, and must then compute what it did alone.

Where the proof should not hold, the copy comes behind a gate or not at all; a wrong claim would show in the outputs,
which are compared to the bit, on weights and statistics that are not trivial.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.layers import RootMeanSquareNorm
from graphgrow.rewrite.closing import close_branches
from graphgrow.rewrite.region import Region
from tests.passes.claims import assert_alive, assert_exact, grown
from tests.rewrite.residual_blocks import CLOSED, GATED, C, Case, conv, features, linear, maps
from tests.rewrite.small_models import Forward


@pytest.mark.parametrize("case", CLOSED, ids=str)
def test_a_residual_block_is_closed(case: Case) -> None:
    graph = case.graph()
    child = grown(graph, "deepen(block, kind=copy)")
    parameters = dict(child.module.named_parameters())
    assert case.closed is not None
    zero = {f"block_deepen.{path}{leaf}" for path in case.closed.split() for leaf in ("", ".weight", ".bias")}
    copied = {name for name in parameters if name.startswith("block_deepen.")}
    assert {name for name in copied if not parameters[name].any()} == zero & copied
    assert not any("gate" in name for name in parameters)
    for name in copied - zero:
        assert torch.equal(parameters[name], parameters[name.replace("block_deepen", "block")])
    assert_exact(graph, child)
    assert assert_alive(graph, child) == copied


def test_a_norm_that_scales_by_one_and_its_weight_is_closed_at_minus_one() -> None:
    """As at the ends of Gemma 2's branches."""
    norm = RootMeanSquareNorm(C, offset=1.0)
    nn.init.normal_(norm.get_parameter("weight"))
    graph = features("Gemma's norm", "", lambda m, x: x + m.n(m.l(F.gelu(x))), l=linear(), n=norm).graph()
    child = grown(graph, "deepen(block, kind=copy)")
    copied = {n: p for n, p in child.module.named_parameters() if n.startswith("block_deepen")}
    assert torch.equal(copied["block_deepen.n.weight"], torch.full((C,), -1.0, dtype=torch.float64))
    assert_exact(graph, child)
    assert assert_alive(graph, child) == copied.keys()
    assert [str(mutation) for mutation in child.mutations("drop-branch")]  # it is known to be closed


@pytest.mark.parametrize("case", GATED, ids=str)
def test_what_cannot_be_closed_is_gated(case: Case) -> None:
    graph = case.graph()
    child = grown(graph, "deepen(block, kind=copy)")
    parameters = dict(child.module.named_parameters())
    assert not parameters["block_deepen_gate.gate.gate"].any()
    for name, copied in parameters.items():
        if name.startswith("block_deepen."):
            assert torch.equal(copied, parameters[name.replace("block_deepen", "block")])
    assert_exact(graph, child)
    assert_alive(graph, child)


def proof(graph: Graph, path: str = "block") -> list[str] | None:
    """What `close_branches` finds for a module's region."""
    assert graph.analysis.facts
    region = Region.of(graph.module.graph, path)
    stream = region.inputs[0]
    return close_branches(graph.module, region.nodes, stream, region.result, region.result, path)


def test_a_sum_that_broadcasts_the_stream_is_not_the_stream() -> None:
    """What comes out has another shape, so that nobody would ask; the proof must not rest on that."""
    model = Forward(lambda m, x: m.block(m.first(x)), first=nn.Linear(3, C),
                    block=Forward(lambda m, x: x + m.l(m.wide), l=linear(), wide=torch.randn(2, 5, C)))  # fmt: skip
    assert proof(gg.trace(model, torch.randn(5, 3))) is None
    model.block._run = lambda m, x: x + m.l(m.wide[0])
    assert proof(gg.trace(model, torch.randn(5, 3))) == ["block.l"]


def test_a_sum_of_two_dtypes_is_not_the_stream() -> None:
    model = Forward(lambda m, x: m.block(m.first(x)), first=nn.Linear(3, C),
                    block=Forward(lambda m, x: x + m.l(x.double()), l=linear().double()))  # fmt: skip
    assert proof(gg.trace(model, torch.randn(5, 3))) is None


class BatchNormAct2d(nn.BatchNorm2d):
    """Like timm's: a batch norm that also activates, and one node of the graph."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__(C)
        self.act, self.drop = act, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.act(super().forward(x))
        return result


@pytest.mark.parametrize(("act", "closed"), [(nn.Identity(), ["block.n"]), (nn.Sigmoid(), None), (nn.ReLU(), None)])
def test_a_norm_that_also_activates(monkeypatch: pytest.MonkeyPatch, act: nn.Module, closed: list[str] | None) -> None:
    monkeypatch.setattr(BatchNormAct2d, "__module__", "timm.layers.norm_act")
    case = maps("norm and activation", None, lambda m, x: x + m.n(m.c(F.silu(x))), c=conv(), n=BatchNormAct2d(act))
    graph = case.graph()
    assert proof(graph) == closed
    assert_exact(graph, gg.apply(graph, "deepen(block, kind=copy)"))


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    """On the meta device the user's leaves have not been run, and their class is all that is known."""

    class Shifted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    case = features("subclass", None, lambda m, x: x + m.l(F.gelu(x)), l=Shifted(C, C))
    assert proof(case.graph()) is None
    with torch.device("meta"):
        model = Forward(lambda m, x: m.block(x), block=Forward(case.run, l=Shifted(C, C)))
        graph = gg.trace(model, torch.empty(5, C), leaves=[Shifted])
    assert proof(graph) is None


class TwoBlocks(nn.Module):
    """Two residual blocks; `how` says what the first one shares with the world."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.last = how, nn.Linear(3, C), nn.Linear(C, 2)
        self.a, self.b = (Forward(lambda m, x: x + m.l2(F.gelu(m.l1(x))), l1=linear(), l2=linear()) for _ in "ab")
        if how == "tied weight":
            self.b.l2.weight = self.a.l2.weight
        if how == "tied bias":
            self.b.l1.bias = self.a.l2.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(self.a(self.first(x)))
        if self.how == "called elsewhere":
            x = self.a.l2(x)
        if self.how == "read elsewhere":
            x = x * self.a.l2.weight.sum()
        result: torch.Tensor = self.last(x)
        return result


@pytest.mark.parametrize("how", ["tied weight", "tied bias", "called elsewhere", "read elsewhere"])
def test_a_map_that_others_use_is_never_set_to_zero(how: str) -> None:
    graph = gg.trace(TwoBlocks(how).double(), torch.randn(4, 5, 3, dtype=torch.float64))
    child = grown(graph, "deepen(a, kind=copy)")
    assert "a_deepen_gate.gate.gate" in dict(child.module.named_parameters())
    assert_exact(graph, child)
    assert bool(child.module.get_parameter("a.l2.weight").any())


@pytest.mark.parametrize("which", ["gamma", "l1", "l2", "both"])
def test_a_branch_that_is_zero_already_gets_no_second_zero(which: str) -> None:
    """Zero times zero would never learn: a layer scale that starts at zero, a last map that does."""
    case = features("layer scale", None, lambda m, x: x + m.l2(F.gelu(m.l1(x))) * m.gamma, l1=linear(), l2=linear(),
                    gamma=torch.full((C,), 0.1))  # fmt: skip
    graph = case.graph()
    names = {"gamma": ["gamma"], "l1": ["l1.weight", "l1.bias"], "l2": ["l2.weight", "l2.bias"], "both": ["gamma"]}[
        which
    ]
    with torch.no_grad():
        for name in names:
            graph.module.get_parameter(f"block.{name}").zero_()
    child = grown(graph, "deepen(block, kind=copy)")
    zero = {n for n, p in child.module.named_parameters() if n.startswith("block_deepen.") and not p.any()}
    expected = names if which in ("gamma", "l2", "both") else [*names, "l2.weight", "l2.bias"]
    assert zero == {f"block_deepen.{name}" for name in expected}
    assert_exact(graph, child)
    if which != "l1":  # with l1 at zero its own gradient through l2 comes a step later than usual
        assert_alive(graph, child)


def test_the_structure_does_not_depend_on_the_weights() -> None:
    """A position table that is zero today is no reason to leave the gate out."""
    case = features("table", None, lambda m, x: x + m.l(F.gelu(x)) + m.b, l=linear(), b=torch.zeros(C))
    graph = case.graph()
    names = [name for name, _ in gg.apply(graph, "deepen(block, kind=copy)").module.named_parameters()]
    with torch.no_grad():
        graph.module.get_parameter("block.b").fill_(1.0)
    assert [name for name, _ in gg.apply(graph, "deepen(block, kind=copy)").module.named_parameters()] == names
    assert "block_deepen_gate.gate.gate" in names


def test_on_the_meta_device_the_same_is_closed() -> None:
    case = CLOSED[2]
    graph = case.graph()
    outline = graph.cost("deepen(block, kind=copy)")
    child = gg.apply(graph, "deepen(block, kind=copy)")
    assert outline.parameters == child.parameter_count - graph.parameter_count
