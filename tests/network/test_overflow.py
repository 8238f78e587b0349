"""Operators that may answer finite numbers with infinity or NaN: what is trusted stays finite on a wide range."""

from __future__ import annotations

import contextlib
import math
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.network.overflow import first_overflowing
from graphgrow.ops.registry import registered
from tests.rewrite.small_models import Forward


def shares(x: Any) -> Any:
    """All but one of them vanish where x is large."""
    return x.cumsum(-1).softmax(-1)


def renormalised(shares: Any) -> Any:
    return shares / shares.sum(-1, keepdim=True)


TRUSTED: dict[str, Any] = {
    "activations": lambda m, x: F.silu(x) + F.gelu(x) + F.softplus(x) + x.sigmoid() + F.elu(x) + F.mish(x) + x.tanh(),
    "softmax": lambda m, x: x.softmax(-1) + F.log_softmax(x, -1),
    "norm": lambda m, x: m.norm(x),
    "number below": lambda m, x: x / 3.0,
    "parameter below": lambda m, x: x / m.scale,
    "exponential of a parameter": lambda m, x: x * m.scale.exp(),
    "whole power": lambda m, x: x**2 + x.pow(3),
    "square root of a square": lambda m, x: x.square().sqrt() + torch.sqrt(x * x) + (x * x + x.abs()).sqrt(),
    "root mean square": lambda m, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "in double": lambda m, x: x * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + 1e-6).float(),
    "standard deviation": lambda m, x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5),
    "variance": lambda m, x: x / (1e-5 + x.var(-1, keepdim=True)).sqrt(),
    "norm below": lambda m, x: x / (x.norm(dim=-1, keepdim=True) + 1e-6),
    "vector norm below": lambda m, x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-6),
    "clamped below": lambda m, x: x / x.abs().clamp(1e-3) + x.clamp_min(1e-3).log() + torch.log1p(x.relu()),
    "a constant of the input's device": lambda m, x: x + torch.tensor(3.0, dtype=x.dtype, device=x.device),
    "renormalised shares": lambda m, x: renormalised(x.softmax(-1).topk(2, dim=-1)[0]).sum(-1),
    "renormalised softmax": lambda m, x: renormalised(x.softmax(1).double()),
    "largest share": lambda m, x: x.softmax(-1) / x.softmax(-1).amax(-1, keepdim=True),
    "mean square by its size": lambda m, x: x * torch.rsqrt(x.pow(2).sum(-1, True) / x.shape[-1] + 1e-6),
    "exponential of what is bounded": lambda m, x: x.tanh().exp() + (-F.softplus(x)).exp(),
    "logarithm of shifted shares": lambda m, x: torch.log(x.sigmoid() + 0.5) + torch.log1p(x.tanh() * 0.9),
    "below zero": lambda m, x: x / (-F.softplus(x) - 0.5),
    "negative power": lambda m, x: (x.square() + 1.0) ** -0.5,
}
WILD: dict[str, Any] = {
    "exp": lambda m, x: x.exp(),
    "exp of what is bounded on one side": lambda m, x: F.softplus(x).exp(),
    "exp_": lambda m, x: x.clone().exp_(),
    "expm1": lambda m, x: torch.expm1(x),
    "sinh": lambda m, x: torch.sinh(x),
    "log": lambda m, x: x.square().log(),
    "log1p": lambda m, x: torch.log1p(x),
    "sqrt": lambda m, x: x.sqrt(),
    "sqrt of an odd power": lambda m, x: x.pow(3).sqrt(),
    "rsqrt": lambda m, x: x.square().mean(-1, keepdim=True).rsqrt() * x,
    "reciprocal": lambda m, x: torch.reciprocal(x),
    "truediv": lambda m, x: 1.0 / x,
    "div": lambda m, x: x.div(x.sum(-1, keepdim=True)),
    "truediv by what may vanish": lambda m, x: x / x.abs(),
    "truediv by a difference": lambda m, x: x / (x.square() - 1.0),
    "truediv by a weighted sum": lambda m, x: x / torch.add(x.square(), 1.0, alpha=-1),
    "truediv by a clamp from above": lambda m, x: x / x.clamp(max=1.0),
    "pow": lambda m, x: x.pow(0.5),
    "pow -1": lambda m, x: x.pow(-1),
    "truediv by a sum of the smallest shares": lambda m, x: renormalised(shares(x).topk(2, largest=False)[0]),
    "truediv by a sum of shares of other sums": lambda m, x: renormalised(x.cumsum(0).softmax(0).topk(2)[0]),
    "truediv by a sum over another axis": lambda m, x: x / shares(x).sum(0, keepdim=True),
    "truediv by some of the shares": lambda m, x: renormalised(shares(x)[:, 1:]),
    "div called divide": lambda m, x: torch.divide(x, x.sum(-1, keepdim=True)),
    "remainder": lambda m, x: torch.remainder(x, x.sum(-1, keepdim=True)),
    "fmod": lambda m, x: torch.fmod(x, x),
    "addcdiv": lambda m, x: torch.addcdiv(x, x, x),
    "asin": lambda m, x: torch.asin(x / 2),
    "arccos": lambda m, x: (x / 2).arccos(),
    "arctanh": lambda m, x: torch.arctanh(x / 2),
    "float_power": lambda m, x: torch.float_power(x, 0.5),
    "special_ndtri": lambda m, x: torch.special.ndtri(x),
    "special_xlog1py": lambda m, x: torch.special.xlog1py(x, x),
    "div called divide, by name": lambda m, x: torch.divide(input=x, other=x),
    "div by name": lambda m, x: x.div(other=x),
    "pow of two": lambda m, x: torch.pow(2.0, x),
}


def nodes_of(run: Any) -> list[fx.Node]:
    model = Forward(run, norm=nn.LayerNorm(4), scale=torch.rand(4) + 0.5)
    graph = gg.trace(model, torch.rand(3, 4) + 0.5)
    assert graph.analysis.facts
    return list(graph.module.graph.nodes)


@pytest.mark.parametrize("name", TRUSTED)
def test_what_is_trusted_stays_finite(name: str) -> None:
    nodes = nodes_of(TRUSTED[name])
    assert first_overflowing(nodes[1:], {nodes[0]}) is None
    model = Forward(TRUSTED[name], norm=nn.LayerNorm(4), scale=torch.rand(4) + 0.5).double()
    for scale in (0.0, 1e-3, 1.0, 1e4, -1e4, 1e18):
        x = scale * torch.randn(7, 4, dtype=torch.float64)
        assert bool(torch.isfinite(model(x)).all()), scale


@pytest.mark.parametrize("name", WILD)
def test_what_may_overflow_is_found(name: str) -> None:
    """Each of them is infinite or NaN for some of these inputs."""
    nodes = nodes_of(WILD[name])
    found = first_overflowing(nodes[1:], {nodes[0]})
    assert found is not None
    assert str(getattr(found.target, "__name__", found.target)).startswith(name.partition(" ")[0])
    model = Forward(WILD[name], norm=nn.LayerNorm(4), scale=torch.rand(4))
    values = [model(scale * torch.ones(2, 4)) for scale in (0.0, 1.0, -1.0, 1e4, -1e4)]
    assert not all(bool(torch.isfinite(value).all()) for value in values)


REFUSALS = (TypeError, RuntimeError, ValueError, IndexError, AttributeError, AssertionError)
"""Of functions that want other arguments than tensors of floating point."""


def wild_functions() -> list[Any]:
    """All functions with a rule, of one tensor or of two, that answer some finite numbers with infinity or NaN."""
    given = [scale * torch.ones(2, 4, 4, dtype=torch.float64) for scale in (0, 0.5, -0.5, 1, -1, 30, -30, 1e4, -1e4)]
    functions: list[Any] = [key for key in registered() if callable(key) and not isinstance(key, type)]
    found = []
    for target in functions:
        for operands in (1,) if target is F.gumbel_softmax else (1, 2):  # whose second is a temperature
            with contextlib.suppress(*REFUSALS), warnings.catch_warnings(action="ignore"):  # it wants something else
                values = [target(*(x.clone() for _ in range(operands))) for x in given]  # some write in place
                kept = [value.isfinite().all() for value in values if value.is_floating_point()]
                if len(kept) == len(given) and not all(kept):
                    found.append(partial(_of_equals, target, operands))
    return found


def _of_equals(target: Any, operands: int, m: Any, x: Any) -> Any:
    return target(*[x] * operands)


def test_those_functions_are_found() -> None:
    names = {run.args[0].__name__ for run in wild_functions()}
    assert {"exp", "log", "rsqrt", "truediv", "special_ndtri", "special_xlog1py", "matrix_exp"} <= names


@pytest.mark.parametrize("run", wild_functions(), ids=lambda run: f"{run.args[0].__name__}-{run.args[1]}")
def test_no_function_with_a_rule_is_trusted_in_vain(run: Any) -> None:
    """Nor where it stands behind what keeps it finite, if that is left outside."""
    for first in (lambda m, x: x, lambda m, x: x.sigmoid() * 0.5 + 0.25):
        model = Forward(lambda m, x: run(m, first(m, x)), norm=nn.LayerNorm(4), scale=torch.ones(4))  # noqa: B023
        graph = gg.trace(model, torch.rand(2, 4, 4) + 0.5)
        assert graph.analysis.facts
        nodes = list(graph.module.graph.nodes)
        start = next((node for node in nodes if node.name == "add"), nodes[0])
        assert first_overflowing(nodes[nodes.index(start) + 1 :], {start}) is not None


def test_only_what_the_sources_reach_counts() -> None:
    nodes = nodes_of(lambda m, x: x * m.scale.exp() / m.scale.log())
    assert first_overflowing(nodes[1:], {nodes[0]}) is None
    scale = next(node for node in nodes if node.op == "get_attr")
    found = first_overflowing(nodes, {scale})
    assert found is not None
    assert found.name == "exp"


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: x.relu().log1p(),
        lambda m, x: x.square().sqrt(),
        lambda m, x: 1 / (x.sigmoid() + 1),
        lambda m, x: x / x.softmax(-1).sum(-1, keepdim=True),
        lambda m, x: x.tanh().exp(),
    ],
)
@pytest.mark.parametrize("second", [False, True], ids=["where it stands", "elsewhere"])
def test_what_the_place_of_a_part_gives_it_is_not_relied_on(run: Any, second: bool) -> None:
    """An operator reads the source's sign where it stands; a copy of it reads what may be of any sign."""
    first, *others = nodes_of(run)
    source = others[0] if second else first
    rest = [node for node in others if node is not source]
    assert (first_overflowing(rest, {source}) is not None) is second


def test_numbers_read_off_shapes_do_not_overflow() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.inner = nn.Module()
            self.inner.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            scaled: torch.Tensor = h + self.inner.linear(h * h.shape[-1] ** -0.5)
            return scaled

    graph = gg.trace(Scaled(), torch.randn(2, 3))
    nodes = list(graph.module.graph.nodes)
    assert graph.analysis.facts
    assert first_overflowing(nodes, {nodes[0]}) is None


MASKS: dict[str, Any] = {
    "fill": lambda m, x: x.masked_fill(x < 0, -math.inf),
    "where": lambda m, x: torch.where(x < 0, -math.inf, x),
    "buffer": lambda m, x: x + m.mask,
}


def test_a_norm_of_infinite_order_is_finite() -> None:
    def run(m: Any, x: torch.Tensor) -> Any:
        h = m.first(x)
        return m.last(torch.relu(h / (h.norm(math.inf, -1, True) + 1)))

    graph = gg.trace(Forward(run, first=nn.Linear(3, 4), last=nn.Linear(4, 2)), torch.randn(2, 5, 3))
    offered = set(map(str, graph.mutations()))
    assert offered >= {"swap-activation(:relu, to=gelu)", "deepen(:relu, kind=mlp)", "split(first)"}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("largest", [True, False], ids=["maximum", "softmax"])
def test_what_a_mask_leaves_infinite_is_closed_by_no_zero(name: str, largest: bool) -> None:
    """Of tokens that are masked altogether the maximum is minus infinity; a softmax takes it away."""

    def run(m: Any, x: torch.Tensor) -> Any:
        h = MASKS[name](m, m.first(x))
        return m.last(torch.sigmoid(h.amax(1) if largest else h.softmax(1).sum(1)))

    model = Forward(run, first=nn.Linear(3, 4), last=nn.Linear(4, 2))
    model.register_buffer("mask", torch.full((5, 4), -math.inf).triu(1))
    graph = gg.trace(model, torch.randn(2, 5, 3))
    for kind in ("swap-activation", "mix-operators"):
        offered = [str(mutation) for mutation in graph.mutations(kind) if ":sigmoid" in str(mutation)]
        assert bool(offered) is not largest, offered
    if largest:
        with pytest.raises(gg.Declined, match="may be infinite"):
            gg.apply(graph, "swap-activation(:sigmoid, to=gelu)")


def test_no_zero_reads_what_a_mask_leaves_infinite() -> None:
    def run(m: Any, x: torch.Tensor) -> Any:
        h = m.first(x)
        return m.last(h.masked_fill(h < 0, -math.inf)).sigmoid()

    graph = gg.trace(Forward(run, first=nn.Linear(3, 4), last=nn.Linear(4, 2)), torch.randn(2, 3))
    assert list(map(str, graph.mutations("widen"))) == []
    with pytest.raises(gg.Declined, match="may be infinite"):
        gg.apply(graph, "widen(first, extra=2)")
    assert list(map(str, graph.mutations("split"))) == ["split(first)"]  # a share of infinity is infinity
