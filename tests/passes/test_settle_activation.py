"""settle-activation: one side of a blend is left, exactly, and a ledger rebuilds which one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.layers import Blend
from graphgrow.network.bare import without_data
from graphgrow.passes import settle_activation
from tests.passes.claims import assert_equal, assert_exact, assert_exports, gradients, grown
from tests.preserved import assert_preserved, assert_same_bits
from tests.rewrite.small_models import Forward


def base(act: nn.Module | None = None, dtype: torch.dtype = torch.float64) -> Graph:
    model = Forward(lambda m, x: m.last(m.act(m.norm(m.first(x)))), first=nn.Linear(3, 4), norm=nn.BatchNorm1d(4),
                    act=act or nn.ReLU(inplace=True), last=nn.Linear(4, 2))  # fmt: skip
    return gg.trace(model.to(dtype), torch.randn(2, 3, dtype=dtype))


def swapped(graph: Graph, share: float, to: str = "gelu") -> Graph:
    child = gg.apply(graph, f"swap-activation(act, to={to})")
    moved(child, share)
    return child


def moved(graph: Graph, share: float) -> None:
    for part in graph.module.modules():
        if isinstance(part, Blend):
            part.s.data.fill_(share)


@pytest.mark.parametrize("to", ["gelu", "tanh", "prelu", "identity"])
def test_at_one_the_new_activation_is_left(to: str) -> None:
    graph = swapped(base(nn.SiLU()), 1.0, to)
    new = graph.module.get_submodule("act.new")
    assert [str(mutation) for mutation in graph.mutations("settle-activation")] == ["settle-activation(act)"]
    child = grown(graph, "settle-activation(act)")
    assert_exact(graph, child, batches=(2, 3))
    assert repr(child.module.get_submodule("act")) == repr(new)
    assert child.parameter_count == graph.parameter_count - 1
    assert [id(p) for p in child.module.get_submodule("act").parameters()] == [id(p) for p in new.parameters()]
    assert {id(p) for p in child.new_parameters()} == {id(p) for p in new.parameters()}
    if to != "identity":
        assert_exact(child, grown(child, "swap-activation(act, to=mish)"), batches=(2,), scales=(1.0,))


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.3), nn.PReLU()])
def test_at_zero_the_graph_is_what_it_was(act: nn.Module) -> None:
    before = base(act)
    graph = swapped(before, 0.0)
    assert [str(m) for m in graph.mutations("settle-activation")] == ["settle-activation(act, keep=old)"]
    child = grown(graph, "settle-activation(act, keep=old)")
    assert_exact(graph, child, batches=(2, 3))
    assert_exact(before, child, batches=(2, 3))
    assert child.text() == before.text()
    assert_same_bits(child.module, before.module)
    assert child.new_parameters() == []


@pytest.mark.parametrize(("share", "said"), [(0.5, "0.5"), (0.999999999, "0.999999999"), (-1.0, "-1.0"), (2.0, "2.0")])
@pytest.mark.parametrize("keep", ["new", "old"])
def test_in_between_it_declines(share: float, said: str, keep: str) -> None:
    graph = swapped(base(), share)
    at = {"new": 1, "old": 0}[keep]
    with pytest.raises(gg.Declined) as caught:
        gg.apply(graph, gg.parse_mutation(f"settle-activation(act, keep={keep})"))
    assert f"the share s of the new activation is {said}, and keep={keep} is exact at {at} alone" in str(caught.value)
    mutations = graph.mutations("settle-activation")
    assert len(mutations) == 0
    assert [(refusal.site, refusal.reason) for refusal in mutations.refusals] == [
        ("act", f"the share s of the new activation is {said}; at 0 or 1 one of the two activations can go")
    ]


def test_the_side_that_counts_is_not_removed() -> None:
    graph = base()
    with pytest.raises(gg.Declined, match=r"new activation is 0\.0, and keep=new is exact at 1 alone"):
        gg.apply(graph, ["swap-activation(act, to=gelu)", "settle-activation(act)"])
    with pytest.raises(gg.Declined, match=r"is 1\.0, and keep=old is exact at 0 alone; move it there first"):
        gg.apply(swapped(graph, 1.0), "settle-activation(act, keep=old)")
    with pytest.raises(gg.Declined, match="there is no blend of two activations here"):
        gg.apply(graph, "settle-activation(act)")
    with pytest.raises(gg.MutationError, match="keep=both: there are new and old"):
        gg.apply(swapped(graph, 1.0), "settle-activation(act, keep=both)")


def test_a_slope_of_zero_is_a_relu_again() -> None:
    graph = base(nn.PReLU(init=0.0))
    assert [str(m) for m in graph.mutations("settle-activation")] == ["settle-activation(act, keep=old)"]
    child = grown(graph, "settle-activation(act, keep=old)")
    assert_exact(graph, child, batches=(2, 3))
    assert isinstance(child.module.get_submodule("act"), nn.ReLU)
    assert gg.verify(graph, child).preserved is True
    assert gg.apply(without_data(graph), "settle-activation(act, keep=old)").text() == child.text()


@pytest.mark.parametrize(
    ("act", "keep", "error", "said"),
    [
        (nn.PReLU(init=0.25), "old", gg.Declined, "the slope is 0.25, and a ReLU is exact at 0 alone"),
        (nn.PReLU(init=0.0), "new", gg.MutationError, "is the new one, a PReLU, already"),
        (nn.PReLU(4, init=0.0), "old", gg.Declined, "no blend of two activations"),
    ],
)
def test_other_slopes_stay(act: nn.Module, keep: str, error: type[Exception], said: str) -> None:
    graph = base(act)
    with pytest.raises(error, match=said):
        gg.apply(graph, f"settle-activation(act, keep={keep})")
    assert f"settle-activation(act, keep={keep})" not in [str(m) for m in graph.mutations("settle-activation")]


@pytest.mark.parametrize(("keep", "share"), [("new", 1.0), ("old", 0.0)])
def test_a_ledger_rebuilds_the_side_that_was_kept(keep: str, share: float, tmp_path: Path) -> None:
    """Replay starts from weights that were never trained, where every share is 0."""
    base_graph = gg.trace("graphgrow:mlp")
    graph = base_graph
    for mutation in list(base_graph.mutations("swap-activation")):
        graph = gg.apply(graph, mutation)
    moved(graph, share)
    graph = gg.apply(graph, list(graph.mutations("settle-activation")))
    assert not any(isinstance(part, Blend) for part in graph.module.modules())
    assert all(keep == "new" or "keep=old" in entry.mutation for entry in graph.ledger.entries[2:])
    loaded = gg.load(gg.save(graph, tmp_path))
    again = gg.replay(base_graph.module, base_graph.inputs.sample()[0], graph.ledger)
    (x,) = graph.inputs.sample(3)[0]
    for other in (loaded, again):
        assert other.text() == graph.text()
        assert_equal(graph.module.eval()(x), other.module.eval()(x), 0.0, "rebuilt")


def test_what_it_costs_is_known_without_data() -> None:
    graph = swapped(base(), 1.0)
    assert graph.cost("settle-activation(act)").parameters == -1
    assert gg.trace("graphgrow:mlp").cost(["swap-activation(layers.1, to=prelu)"]).parameters == 1


class Twice(nn.Module):
    """An activation called twice, and one that is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.act = *(nn.Linear(4, 4) for _ in range(4)), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(torch.tanh(self.c(self.act(self.b(self.act(self.a(x)))))))


def test_calls_and_functions_settle_too() -> None:
    before = gg.trace(Twice().double(), torch.randn(2, 4, dtype=torch.float64))
    graph = before
    while graph.mutations("swap-activation"):
        graph = gg.apply(graph, graph.mutations("swap-activation")[0])
    assert sum(isinstance(part, Blend) for part in graph.module.modules()) == 3
    for share in (0.0, 1.0):
        moved(graph, share)
        settled = gg.apply(graph, list(graph.mutations("settle-activation")))
        assert_exact(graph, settled)
        assert settled.parameter_count == before.parameter_count
        if share == 0.0:
            assert_exact(before, settled)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_chain_on_the_reference_models(name: str) -> None:
    graph = gg.trace(f"graphgrow:{name}")
    graph = gg.Graph(graph.module.double(), graph.inputs.with_dtype(torch.float64))
    site = graph.mutations("swap-activation")[1].site_name
    texts = [f"swap-activation({site}, to=silu)", str(graph.mutations("widen")[1]), str(graph.mutations("split")[1])]
    texts += ["settle-activation", str(graph.mutations("widen")[2])]
    for number, text in enumerate(texts):
        if text == "settle-activation":
            moved(graph, 1.0)
            text = f"settle-activation({site})"
        child = gg.apply(graph, text, seed=number)
        assert_preserved(graph, child, number)
        graph = child
    assert isinstance(graph.module.get_submodule(site), nn.SiLU)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize(("keep", "share"), [("new", 1.0), ("old", 0.0)])
def test_the_optimizer_lets_go_of_what_is_removed(kind: Any, keep: str, share: float) -> None:
    graph = base(nn.PReLU())
    optimizer = kind(graph.module.parameters(), lr=0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))
    args = graph.inputs.sample(2, 5)[0]
    graph = gg.apply(graph, "swap-activation(act, to=gelu)", optimizer=optimizer)
    gradients(graph.module, args)
    optimizer.step()
    moved(graph, share)
    slope, s = (graph.module.get_parameter(f"act.{name}") for name in ("old.weight", "s"))
    group, kept = optimizer.param_groups[0]["params"], optimizer.state[slope]
    child = gg.apply(graph, f"settle-activation(act, keep={keep})", optimizer=optimizer)
    assert optimizer.param_groups[0]["params"] is group
    assert {id(p) for p in group} == {id(p) for p in child.module.parameters()}
    assert s not in optimizer.state
    assert (slope in optimizer.state) is (keep == "old")
    if keep == "old":
        assert optimizer.state[slope] is kept
    gradients(child.module, args)
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    graph = swapped(base(nn.SiLU(), dtype), 1.0)
    x = (10 * torch.randn(7, 3)).to(dtype)
    assert_equal(graph.module.eval()(x), gg.apply(graph, "settle-activation(act)").module.eval()(x), 0.0, str(dtype))


def test_verify_sees_the_wrong_side(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = swapped(base(dtype=torch.float32), 1.0)
    assert gg.verify(graph, gg.apply(graph, "settle-activation(act)")).preserved is True
    monkeypatch.setattr(settle_activation, "KEEPS", {"new": 0.0, "old": 1.0})
    assert gg.verify(graph, gg.apply(graph, "settle-activation(act, keep=old)")).preserved is False


def test_onnx(tmp_path: Path) -> None:
    graph = swapped(base(dtype=torch.float32), 1.0, "hardswish")
    assert_exports(gg.apply(graph, "settle-activation(act)"), tmp_path)
