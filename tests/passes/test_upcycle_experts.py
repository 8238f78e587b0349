"""upcycle-experts: equal experts compute what the MLP did, then part, and the router learns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.layers import Router
from graphgrow.models import MODELS
from graphgrow.network.bare import without_data
from tests.passes.claims import assert_exact, assert_exports, assert_reloads, grown
from tests.rewrite.small_models import Forward


class Gated(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the same."""
        result: torch.Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return result


def around(mlp: nn.Module, width: int = 6) -> Graph:
    torch.manual_seed(0)
    model = Forward(
        lambda m, x: m.head(m.first(x) + m.mlp(m.norm(m.first(x)))), first=nn.Linear(3, 6), norm=nn.LayerNorm(6),
        mlp=mlp, head=nn.Linear(width, 2),
    )  # fmt: skip
    return gg.trace(model.double(), torch.randn(2, 5, 3).double())


def plain(p: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Dropout(p), nn.Linear(9, 6))


@pytest.mark.parametrize("mlp", [plain(), Gated(6, 4)], ids=["plain", "gated"])
@pytest.mark.parametrize("options", ["", ", experts=2, top_k=1", ", experts=3, top_k=3"])
def test_exact_and_alive(mlp: nn.Module, options: str) -> None:
    graph = around(mlp)
    assert [str(m) for m in graph.mutations("upcycle-experts")] == ["upcycle-experts(mlp)"]
    child = grown(graph, f"upcycle-experts(mlp{options})")
    assert_exact(graph, child, tolerance=1e-13, batches=(1, 3))
    modes = ("eval", "train", "gradients") if "top_k=1" in options else ("eval", "train", "gradients", "alive")
    verdict = gg.verify(graph, child, modes=modes)  # the one chosen expert has share 1, which no score changes
    assert verdict.preserved is True, str(verdict)
    assert gg.apply(without_data(graph), f"upcycle-experts(mlp{options})").text() == child.text()


def test_experts_part_and_the_router_learns() -> None:
    child = gg.apply(around(plain()), "upcycle-experts(mlp)")
    module = child.module
    router = module.get_parameter("mlp_upcycle_experts.router.weight")
    experts = ["mlp", *(f"mlp_upcycle_experts.experts.{i}" for i in (1, 2, 3))]
    weights = [module.get_parameter(f"{path}.0.weight") for path in experts]
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    moved = []
    for step in range(3):
        (x,), _ = child.inputs.sample(step, 16, torch.float64)
        optimizer.zero_grad()
        module(x).square().sum().backward()
        assert router.grad is not None
        moved.append(float(router.grad.abs().max()))
        optimizer.step()
    assert moved[0] < 1e-12 < 1e-6 < moved[1]
    apart = [float((a - b).detach().abs().max()) for i, a in enumerate(weights) for b in weights[:i]]
    assert min(apart) > 1e-6


def test_each_token_runs_on_the_experts_that_score_best() -> None:
    """By hand: distinct experts, the two best scores of each token, a softmax over these."""
    child = gg.apply(around(plain()), "upcycle-experts(mlp, experts=3)")
    paths = ("mlp", "mlp_upcycle_experts.experts.1", "mlp_upcycle_experts.experts.2")
    experts = [nn.Sequential(*child.module.get_submodule(path).children()) for path in paths]
    with torch.no_grad():
        for number, expert in enumerate(experts):
            for parameter in expert.parameters():
                parameter.mul_(number + 1)
    parts: Any = child.module
    (x,), _ = child.inputs.sample(4, 2, torch.float64)
    stream = parts.first(x)
    tokens = parts.norm(stream)
    scores = (tokens @ parts.get_parameter("mlp_upcycle_experts.router.weight").t()).detach()
    mixed = torch.zeros_like(stream)
    for n in range(tokens.shape[0]):
        for position in range(tokens.shape[1]):
            best = sorted(range(3), key=lambda e: -float(scores[n, position, e]))[:2]
            shares = torch.softmax(scores[n, position, best], 0)
            for share, number in zip(shares, best, strict=True):
                mixed[n, position] += share * experts[number](tokens[n, position])
    assert torch.allclose(child.module(x), parts.head(stream + mixed), rtol=1e-10)


def test_dropout_inside_is_exact_in_eval_alone() -> None:
    assert gg.apply(around(plain(0.5)), "upcycle-experts(mlp)").steps[-1].exact_in == {"eval"}


def test_experts_grow_by_themselves() -> None:
    child = gg.apply(around(Gated(6, 4)), "upcycle-experts(mlp)")
    offered = [str(m) for m in child.mutations("widen")]
    assert {"widen(mlp.gate, extra=2)", "widen(mlp_upcycle_experts.experts.1.gate, extra=2)"} <= set(offered)
    for text in offered:
        assert gg.verify(child, gg.apply(child, text)).preserved is True


def test_the_reference_models() -> None:
    for name, sites in {"gpt": ["blocks.0.mlp", "blocks.1.mlp"], "vit": ["blocks.0.mlp"], "resnet": []}.items():
        options = {"depth": 1} if name == "vit" else {}
        graph = gg.trace(MODELS[name].factory(**options).eval(), MODELS[name].example())
        assert [m.site_name for m in graph.mutations("upcycle-experts")] == sites


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("upcycle-experts(mlp, experts=1)", gg.MutationError, "at least 2 experts"),
        ("upcycle-experts(mlp, top_k=5)", gg.MutationError, "1 to all"),
        ("upcycle-experts(nowhere)", gg.GraphGrowError, "nowhere"),
    ],
)
def test_refusals(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        gg.apply(around(plain()), text)


def _summed(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.down(m.up(x).relu()).sum(1)


def _compared(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.down(m.up(x).relu()) > 0


def _overwriting(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.down(m.up(x.mul_(0.5)).relu())


def _detached(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.down(m.up(x).relu().detach())


def _mixed(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.down(m.up(x).relu()) * m.router(x)[..., :1]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (_summed, r"turns \(2, 5, 6\) into \(2, 6\), no features of each token"),
        (_compared, "turns torch.float32 into torch.bool"),
        (_overwriting, "overwrites its input, which every expert reads"),
        (_detached, "is computed without gradients, so that no expert would learn"),
        (_mixed, "is a mixture of experts already"),
    ],
)
def test_what_can_be_no_expert(run: Any, said: str) -> None:
    mlp = Forward(run, up=nn.Linear(6, 9), down=nn.Linear(9, 6), router=Router(6, 2, 1))
    graph = gg.trace(Forward(lambda m, x: m.mlp(m.first(x)), first=nn.Linear(3, 6), mlp=mlp), torch.randn(2, 5, 3))
    mutations = graph.mutations("upcycle-experts")
    assert len(mutations) == 0
    assert [refusal.site for refusal in mutations.refusals] == ["mlp"]
    with pytest.raises(gg.Declined, match=said):
        gg.apply(graph, "upcycle-experts(mlp)")


def test_once_is_enough_and_two_inputs_are_too_many() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            """(n, 3) and (n, 4) -> (n, 4)."""
            result: torch.Tensor = self.b(self.a(x).relu() * y)
            return result

    graph = gg.trace(Forward(lambda m, x: m.pair(x, m.c(x)), pair=Pair(), c=nn.Linear(3, 4)), torch.randn(2, 3))
    with pytest.raises(gg.Declined, match="2 tensors flow into"):
        gg.apply(graph, "upcycle-experts(pair)")


def test_optimizer_export_and_storage(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:mlp")
    optimizer = torch.optim.AdamW(graph.module.parameters())
    child = gg.apply(graph, "upcycle-experts(layers, experts=2)", optimizer=optimizer)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in child.module.parameters()}
    assert_exports(copy.copy(child), tmp_path)
    assert_reloads(child, tmp_path / "saved")
