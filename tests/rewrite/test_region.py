"""A module's part of a graph, and what of it may be copied."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.rewrite.region import Region
from tests.passes.claims import assert_alive, assert_exact, grown
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward

C = 4


def traced(run: Any, **members: Any) -> Graph:
    """first: 3 -> C, a block, last: C -> 2, in float64."""
    block = Forward(run, **members)
    model = Forward(lambda m, x: m.last(m.block(m.first(x))), first=nn.Linear(3, C), block=block, last=nn.Linear(C, 2))
    return gg.trace(model.double(), torch.randn(4, 5, 3, dtype=torch.float64))


def residual(m: Any, x: Any) -> Any:
    return x + m.l2(F.gelu(m.l1(x)))


def region_of(graph: Graph, path: str = "block") -> Region:
    assert graph.analysis.facts
    return Region.of(graph.module.graph, path)


def test_nodes_inputs_and_result() -> None:
    graph = traced(residual, l1=nn.Linear(C, 6), l2=nn.Linear(6, C))
    region = region_of(graph)
    names = [str(node.target) for node in region.nodes if node.op == "call_module"]
    assert names == ["block.l1", "block.l2"]
    assert region.result.name == "add"
    assert [str(node.target) for node in region.inputs] == ["first"]
    assert region.streams() == list(region.inputs)


def test_a_path_is_not_a_prefix() -> None:
    layers = [nn.Linear(3, C), *(nn.Sequential(nn.Linear(C, C), nn.Tanh()) for _ in range(10))]
    graph = gg.trace(nn.Sequential(*layers, nn.Linear(C, 2)), torch.randn(4, 3))
    assert [str(node.target) for node in region_of(graph, "1").nodes] == ["1.0", "1.1"]
    child = gg.apply(graph, "deepen(1, kind=copy)")
    assert {n for n, _ in child.module.named_parameters() if "deepen" in n} == {
        "1_deepen.0.weight", "1_deepen.0.bias", "1_deepen_gate.gate.gate"
    }  # fmt: skip


class Several(nn.Module):
    """Blocks that cannot be copied, each for its own reason."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, C), nn.Linear(C, 2)
        self.two = Forward(lambda m, x: (m.l(x), m.l(x).tanh()), l=nn.Linear(C, C))
        self.narrow = Forward(lambda m, x: m.l(x), l=nn.Linear(C, 3))
        self.wide = Forward(lambda m, x: m.l(x), l=nn.Linear(3, C))
        self.chunks = Forward(lambda m, x: m.l(x).chunk(2, -1), l=nn.Linear(C, 2 * C))
        self.late = Forward(_overwritten_late, l=nn.Linear(C, C))
        self.unused, self.twice = nn.Linear(C, C), nn.Sequential(nn.Linear(C, C))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.two(self.first(x))
        a, b = self.chunks(self.wide(self.narrow(a)) + b)
        result: torch.Tensor = self.last(self.twice(torch.relu(self.twice(self.late(a + b)))))
        return result


def _overwritten_late(m: Any, x: Any) -> Any:
    y = m.l(x)
    y[..., 0] = 0.0
    return y


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("two", "2 values leave `two`"),
        ("narrow", "nothing that flows into `narrow`"),
        ("chunks", "no single tensor"),
    ],
)
def test_what_cannot_be_copied_declines(path: str, reason: str) -> None:
    graph = gg.trace(Several(), torch.randn(4, 5, 3))
    if path != "narrow":
        with pytest.raises(gg.Declined, match=reason):
            region_of(graph, path)
    if path != "two":  # several values leave it: it is no site
        with pytest.raises(gg.Declined, match=reason):
            gg.apply(graph, f"deepen({path}, kind=copy)")


@pytest.mark.parametrize("path", ["unused", "nowhere", "first:add"])
def test_where_nothing_runs(path: str) -> None:
    with pytest.raises(gg.Declined, match=f"no operator stands in `{path}`; kind=copy wants the path of a module"):
        region_of(gg.trace(Several(), torch.randn(4, 5, 3)), path)


def test_a_module_called_twice_with_something_between() -> None:
    with pytest.raises(gg.Declined, match="2 values leave `twice`"):
        region_of(gg.trace(Several(), torch.randn(4, 5, 3)), "twice")


def test_a_module_called_twice_in_a_row_is_copied_with_both_calls() -> None:
    inner = Forward(residual, l1=nn.Linear(C, 6), l2=nn.Linear(6, C))
    model = Forward(lambda m, x: m.last(m.b(m.b(m.first(x)))), first=nn.Linear(3, C), b=inner, last=nn.Linear(C, 2))
    graph = gg.trace(model.double(), torch.randn(4, 5, 3, dtype=torch.float64))
    child = grown(graph, "deepen(b, kind=copy)")
    calls = [str(node.target) for node in child.module.graph.nodes if node.op == "call_module"]
    assert calls.count("b_deepen.l1") == 2
    assert_exact(graph, child)
    assert_alive(graph, child)


def test_a_leaf_the_user_asked_for_is_not_copied() -> None:
    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(C, C)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.l(x) if x.sum() > 0 else -self.l(x)
            return result

    block = Forward(lambda m, x: x + m.inner(x), inner=Opaque())
    model = nn.Sequential(nn.Linear(3, C), block, nn.Linear(C, 2))
    graph = gg.trace(model, torch.randn(4, 3), leaves=[Opaque])
    with pytest.raises(gg.Declined, match=r"`1\.inner` is a leaf whose inside is not known"):
        gg.apply(graph, "deepen(1, kind=copy)")


# -- what the copy shares ------------------------------------------------------------------------------------


def test_the_copy_of_a_leaf_has_weights_of_its_own() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(3, C), nn.Linear(C, C), nn.ReLU(), nn.Linear(C, 2)), torch.randn(4, 3))
    child = grown(graph, "deepen(1, kind=copy)")
    assert torch.equal(child.module.get_parameter("1_deepen.weight"), child.module.get_parameter("1.weight"))
    assert child.module.get_parameter("1_deepen.weight") is not child.module.get_parameter("1.weight")
    assert_preserved(graph, child)


def test_ties_within_and_to_the_outside_are_kept() -> None:
    inside = nn.Linear(C, C)
    inside.weight = nn.Parameter(torch.randn(C, C))
    block = Forward(lambda m, x: x + m.l2(m.l1(m.l0(x)).tanh()), l0=nn.Linear(C, C), l1=inside, l2=nn.Linear(C, C))
    model = Forward(lambda m, x: m.last(m.other(m.block(m.first(x)))), first=nn.Linear(3, C), block=block,
                    other=nn.Linear(C, C), last=nn.Linear(C, 2)).double()  # fmt: skip
    model.block.l1.weight = model.block.l0.weight
    model.other.bias = model.block.l0.bias
    graph = gg.trace(model, torch.randn(4, 3, dtype=torch.float64))
    child = grown(graph, "deepen(block, kind=copy)")
    get = child.module.get_parameter
    assert get("block_deepen.l0.weight") is get("block_deepen.l1.weight")
    assert get("block_deepen.l0.weight") is not get("block.l0.weight")
    assert get("block_deepen.l0.bias") is get("other.bias") is get("block.l0.bias")
    assert get("block_deepen.l0.bias") is graph.module.get_parameter("other.bias")
    assert not get("block_deepen.l2.weight").any()
    assert_exact(graph, child)


class Block(nn.Module):
    """Reads a norm that is not registered below it."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.l1, self.l2, self.n = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)
        self._owner = [owner]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm: nn.Module = self._owner[0].get_submodule("norm")
        result: torch.Tensor = x + self.l2(self.n(norm(self.l1(x))).relu())
        return result


def test_a_module_of_others_stays_theirs() -> None:
    """Also where its path begins like the block's."""

    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.blocks_own, self.last = nn.Linear(3, C), nn.Linear(C, C), nn.Linear(C, 2)
            self.norm, self.block = self.blocks_own, Block(self)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.block(self.first(x)))
            return result

    graph = gg.trace(Owner().double(), torch.randn(5, 3, dtype=torch.float64))
    child = grown(graph, "deepen(block, kind=copy)")
    calls = [str(node.target) for node in child.module.graph.nodes if node.op == "call_module"]
    assert calls.count("blocks_own") == 2
    assert_exact(graph, child)


def test_a_parameter_that_is_read_by_hand_and_by_its_module() -> None:
    graph = traced(lambda m, x: x + m.l(m.n(x * m.n.weight) + m.scale.mean()), n=nn.LayerNorm(C), l=nn.Linear(C, C),
                   scale=torch.randn(2, C))  # fmt: skip
    child = grown(graph, "deepen(block, kind=copy)")
    assert {n for n, _ in child.module.named_parameters() if n.startswith("block_deepen")} == {
        "block_deepen.n.weight", "block_deepen.n.bias", "block_deepen.l.weight", "block_deepen.l.bias",
        "block_deepen.scale",
    }  # fmt: skip
    assert_exact(graph, child)
    assert_alive(graph, child)


def test_a_buffer_that_is_read_by_hand_is_copied() -> None:
    block = Forward(lambda m, x: x + m.l(x * m.table), l=nn.Linear(C, C))
    block.register_buffer("table", torch.randn(C))
    model = nn.Sequential(nn.Linear(3, C), block, nn.Linear(C, 2)).double()
    graph = gg.trace(model, torch.randn(4, 3, dtype=torch.float64))
    child = grown(graph, "deepen(1, kind=copy)")
    assert torch.equal(child.module.get_buffer("1_deepen.table"), child.module.get_buffer("1.table"))
    assert_exact(graph, child)


# -- memory that is written into -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "operator"),
    [
        (lambda m, x: x + m.l(x).exp() * x, "exp"),
        (lambda m, x: x + m.l(x / x.sum(-1, keepdim=True)), "truediv"),
        (lambda m, x: x + m.l(x.log()), "log"),
        (lambda m, x: x + m.l(torch.sqrt(x)), "sqrt"),
        (lambda m, x: x + m.l(x.pow(-1)), "pow"),
        (lambda m, x: x + m.l(x * torch.rsqrt(x.pow(3).mean(-1, keepdim=True) + 1e-5)), "rsqrt"),
    ],
)
def test_what_may_overflow_is_declined(run: Any, operator: str) -> None:
    """At x = 5 the block x + w exp(x) gives 150, whose exponential is infinite in float32: 0 times that is NaN."""
    graph = traced(run, l=nn.Linear(C, C))
    with pytest.raises(gg.Declined, match=rf"`{operator}\w*` may overflow on what `block` puts out"):
        gg.apply(graph, "deepen(block, kind=copy)")
    assert not [m for m in graph.mutations("deepen") if str(m) == "deepen(block, kind=copy)"]


def test_a_norm_that_is_spelled_out_is_copied() -> None:
    def rms(m: Any, x: Any) -> Any:
        return x + m.l(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * m.w)

    graph = traced(rms, l=nn.Linear(C, C), w=torch.rand(C))
    child = grown(graph, "deepen(block, kind=copy)")
    assert_exact(graph, child)
    assert_alive(graph, child)


def test_what_growth_put_into_a_block_is_copied_with_it() -> None:
    """The mean of a norm that is spelled out is scaled when new units are zero: the factor belongs to the block."""

    def block(m: Any, x: Any) -> Any:
        return x + m.b(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * m.w).reshape(len(x), -1)

    graph = gg.trace(Forward(lambda m, x: m.last(m.block(m.first(x))), first=nn.Linear(3, C),
                             block=Forward(block, b=nn.Linear(C, C), w=torch.rand(C)),
                             last=nn.Linear(C, 2)).double(), torch.randn(4, 3).double(), way="fx")  # fmt: skip
    wide = gg.apply(graph, "widen(first, extra=2)")
    assert any("unscaled" in node.name for node in wide.module.graph.nodes)
    child = grown(wide, "deepen(block, kind=copy)")
    assert_exact(graph, child)


# -- names ---------------------------------------------------------------------------------------------------


def test_the_copy_is_a_module_of_its_own() -> None:
    """It can be copied itself, and its parts are sites."""
    block = Forward(lambda m, x: x + m.inner(x), inner=Forward(residual, l1=nn.Linear(C, 6), l2=nn.Linear(6, C)))
    model = nn.Sequential(nn.Linear(3, C), block, nn.Linear(C, 2)).double()
    graph = gg.trace(model, torch.randn(4, 3, dtype=torch.float64))
    child = gg.apply(graph, "deepen(1, kind=copy)")
    for site in ("1_deepen", "1_deepen.inner", "1_deepen.inner.l1", "1_deepen.inner:gelu", "1_deepen:add"):
        assert child.sites.find(site) is not graph.sites.find(site.replace("_deepen", ""))
    assert [str(n.target) for n in region_of(child, "1").nodes if n.op == "call_module"] == ["1.inner.l1", "1.inner.l2"]
    again = gg.apply(
        child, ["deepen(1_deepen, kind=copy)", "deepen(1_deepen.inner, kind=copy)", "deepen(1, kind=copy)"]
    )
    assert {"1_deepen_deepen.inner.l1.weight", "1_deepen.inner_deepen.l1.weight", "1_deepen2.inner.l1.weight"} <= {
        name for name, _ in again.module.named_parameters()
    }
    assert_preserved(graph, dataclasses.replace(again, steps=child.steps))


def test_parameters_that_a_capture_fetches_outside_of_every_module_belong_to_theirs() -> None:
    """As Dynamo writes them: without a place of their own; copies have their own, and those of others stay shared."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(n, 4) -> the same."""
            return x + F.linear(x, self.w, self.b).tanh()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.part, self.last = nn.Linear(3, 4), Half(), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(n, 3) -> (n, 2)."""
            result: torch.Tensor = self.last(self.part(self.first(x)) + self.part.b)
            return result

    graph = gg.trace(Whole().double(), torch.randn(2, 3).double())
    fetched = [node for node in graph.module.graph.nodes if node.op == "get_attr"]
    for node in fetched:
        node.meta.pop("nn_module_stack", None)
    region = Region.of(graph.module.graph, "part")
    assert [node.target for node in region.nodes if node.op == "get_attr"][:1] == ["part.w"]
    child = gg.apply(graph, "deepen(part, kind=copy)")
    names = {name for name, _ in child.module.named_parameters()} - {
        name for name, _ in graph.module.named_parameters()
    }
    assert "part_deepen.w" in names
    assert gg.verify(graph, child).preserved is True
