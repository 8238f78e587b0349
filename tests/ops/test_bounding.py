"""The bounds of every operator that has some, against the operator itself; and the growth that they admit."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.layers import ByMode, CopyInOneMode
from graphgrow.ops import bounding
from tests.ops.probe import op
from tests.preserved import assert_preserved

REST: dict[str, tuple[Any, ...]] = {
    "pow": (2,), "__pow__": (3,), "clamp": (-0.5, 0.25), "clip": (0.25,), "sum": (1,), "cumsum": (0,), "softmax": (-1,),
    "log_softmax": (-1,), "view": (12,), "reshape": (4, 3), "unflatten": (1, (2, 2)), "permute": (1, 0),
    "transpose": (0, 1), "unsqueeze": (0,), "expand": (3, 4), "repeat": (2, 1), "to": (torch.float64,),
    "select": (0, 1), "chunk": (2, 1), "split": (2, 1), "getitem": (0,), "movedim": (0, 1), "flip": ((0,),),
    "avg_pool1d": (2, 1, 1), "max_pool1d": (2, 1, 1), "adaptive_avg_pool1d": (3,), "adaptive_max_pool1d": (3,),
    "roll": (1,), "clamp_min": (0.25,), "clamp_max": (0.25,), "full_like": (-0.75,),
}  # fmt: skip
TWO = {
    "add", "iadd", "sub", "isub", "mul", "imul", "multiply", "truediv", "div", "true_divide",
    "maximum", "minimum", "cosine_similarity", "expand_as",
    "type_as",
}  # fmt: skip
PRODUCTS = {"matmul": 2, "mm": 2, "bmm": 3, "dot": 1}
MADE_WITH: dict[Any, tuple[int, ...]] = dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), (2,))


class _Kept(nn.Module):
    """One operator on what an activation has bounded, so that its own bounds say something."""

    def __init__(self, target: Any, name: str, before: Callable[[Any], Any]) -> None:
        super().__init__()
        self._target, self._name, self._before = target, name, before
        self.op = target(*MADE_WITH.get(target, ())) if isinstance(target, type) else None

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        x, y = self._before(x), self._before(y)
        if self.op is not None:
            return x, self.op(*(x.clone(), y)[: 2 if isinstance(self.op, (ByMode, CopyInOneMode)) else 1])
        if self._name == "lerp":
            return x, op(self._target, x, y, 0.25)
        if self._name == "masked_fill":
            return x, op(self._target, x, y > x, -0.5)
        if self._name == "copy_":
            return x, op(self._target, x.clone(), y)
        if self._name == "set_item":
            return x, self._target(x.clone(), (slice(None), 0), y[:, 0])
        if self._name == "einsum":
            return x, op(self._target, "ij,ij,kj->ik", x, y, y)
        if self._name == "rand":
            return x, self._target(x.shape)
        if self._name == "linspace":
            return x, self._target(-0.5, 0.75, 12).view(3, 4)
        if self._name in ("cat", "concat", "stack"):
            return x, self._target([x, y])
        if self._name in PRODUCTS:
            x, y = (v.reshape({1: (12,), 2: (3, 4), 3: (1, 3, 4)}[PRODUCTS[self._name]]) for v in (x, y))
            return x, op(self._target, x, y if self._name == "dot" else y.transpose(-2, -1))
        return x, op(self._target, x, *((y,) if self._name in TWO else REST.get(self._name, ())))


def _targets() -> list[tuple[Any, str]]:
    """Every entry of the table: functions, methods, modules."""
    found: list[tuple[Any, str]] = []
    for name in bounding._BY_NAME:
        owned = [getattr(owner, name) for owner in (torch, F, operator, torch.linalg) if hasattr(owner, name)]
        method = [name] if hasattr(torch.Tensor, name) else []
        found += [(target, name) for target in dict.fromkeys([*owned, *method])]
    asking = (nn.Softmax, nn.LogSoftmax, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
    return found + [(kind, name) for kind, name in bounding._MODULES.items() if kind not in asking]


BEFORE = {
    "anything": lambda x: x * 1.0,
    "positive": lambda x: torch.relu(x) + 0.25,
    "negative": lambda x: -torch.sigmoid(x) - 0.25,
}


def _spelled(part: Any) -> str:
    """Where a function comes from, or a method's name: an id that is the same in every process."""
    return part if isinstance(part, str) else getattr(part, "__module__", None) or "torch"


@pytest.mark.parametrize(("target", "name"), _targets(), ids=_spelled)
@pytest.mark.parametrize("kind", BEFORE)
def test_outputs_keep_to_their_bounds(target: Any, name: str, kind: str) -> None:
    torch.manual_seed(0)
    inputs = (3 * torch.randn(3, 4, dtype=torch.float64), 3 * torch.randn(3, 4, dtype=torch.float64))
    model = _Kept(target, name, BEFORE[kind])
    try:
        expected = model(*inputs)[1]
    except (TypeError, RuntimeError, IndexError) as error:
        pytest.skip(f"no such form of it: {error}")
    graph = gg.trace(model, inputs)
    found = graph.analysis.facts[next(iter(graph.module.graph.find_nodes(op="output"))).args[0][1]]
    if not found.flows:
        pytest.skip("no rule for its axes")
    tensors = expected if isinstance(expected, (tuple, list)) else (expected,)
    assert len(found.flows) == len(tensors)
    for (value, _), tensor in zip(found.flows, tensors, strict=True):
        good = tensor.isnan() | ((tensor >= value.bounds.low - 1e-12) & (tensor <= value.bounds.high + 1e-12))
        assert bool(good.all()), f"{value.bounds} does not hold {tensor}"


def _grown(run: Callable[[Any, Any], Any]) -> gg.Graph:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(5, 7), nn.Linear(5, 7), nn.Linear(7, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.out(run(self.a(x), self.b(x)))
            return result

    torch.manual_seed(0)
    return gg.trace(Model().double(), torch.randn(4, 5, dtype=torch.float64))


def _stabilised(x: Any) -> Any:
    return torch.exp(x - x.amax(-1, keepdim=True))[..., 0]


ADMITTED: list[Callable[[Any, Any], Any]] = [
    lambda a, b: torch.log(F.softplus(a) + 1e-3),
    lambda a, b: torch.log1p(torch.relu(a)),
    lambda a, b: torch.log(nn.Softplus(beta=2.0)(a) + 1e-3),
    lambda a, b: torch.sqrt(a**2 + b.abs() + 1e-5),
    lambda a, b: torch.rsqrt((a * a).clamp(min=1e-4)),
    lambda a, b: a / (1 + b.abs()),
    lambda a, b: a / torch.sqrt(b.var(0, keepdim=True) + 1e-5),
    lambda a, b: torch.exp(-torch.exp(b.tanh()) * F.softplus(a)),
    lambda a, b: (torch.sigmoid(a) + 0.5) ** -0.5,
    lambda a, b: a * torch.reciprocal(1 + torch.exp(b.clamp(max=5))),
    lambda a, b: 1 / (F.elu(a) + 1.5),
    lambda a, b: torch.acos(0.9 * a.tanh()) + torch.atanh(0.5 * a.sin()),
    lambda a, b: torch.exp((s := F.softplus(a)) - torch.maximum(s, F.softplus(b))),
    lambda a, b: torch.exp((s := F.softplus(a)) - torch.maximum(b, s).detach()),
    lambda a, b: _stabilised(F.softplus(a)[..., None] * torch.arange(3.0, dtype=a.dtype)),
    lambda a, b: torch.exp((s := F.softplus(a)) - torch.max(s, F.softplus(b))),
    lambda a, b: torch.exp((-F.softplus(a)).masked_fill(b > 0, -math.inf)),
    lambda a, b: torch.exp(torch.where(b > 0, -F.softplus(a), -math.inf)),
    lambda a, b: torch.exp(-F.softplus(a)[..., None] * torch.linspace(0, 1, 4, dtype=a.dtype)).sum(-1),
    lambda a, b: a / torch.where(b > 0, 1.0, torch.relu(a) + 0.5),
    lambda a, b: a / torch.exp(b.tanh())[..., None].expand(-1, -1, 3).sum(-1),
    lambda a, b: a / torch.einsum("bim,bim->bi", *[(F.softplus(b) + 1e-4)[..., None].expand(-1, -1, 3)] * 2),
    lambda a, b: torch.exp(torch.einsum("bi,bi->bi", F.softplus(a), -torch.exp(b.tanh()))),
    lambda a, b: a / torch.sqrt(torch.var_mean(b, 0, keepdim=True)[0] + 1e-5),
    lambda a, b: 1 / (torch.relu(a) + a.shape[0]),  # at least 1, whatever the batch
    lambda a, b: torch.log(torch.sigmoid(a) + a.shape[0] ** 0.5 / 2),
    lambda a, b: F.avg_pool1d(a.clamp(min=1e-6)[..., None].expand(-1, -1, 4) ** 3, 2)[..., 0] ** (1 / 3),
    lambda a, b: torch.log(F.adaptive_avg_pool1d(torch.exp(a.tanh())[..., None].expand(-1, -1, 4), 1)[..., 0]),
    lambda a, b: torch.rsqrt(torch.relu(a) + (a.shape[1] - 6)),  # a width, which stays what it was
    lambda a, b: torch.sqrt(torch.relu(a) + a.shape[0] // 2 + 1),
]


@pytest.mark.parametrize("run", ADMITTED)
def test_units_behind_what_is_bounded_away_from_its_poles_are_appended(run: Callable[[Any, Any], Any]) -> None:
    graph = _grown(run)
    child = gg.apply(graph, "widen(a, extra=3)")
    assert_preserved(graph, child)
    x = 1e18 * torch.randn(6, 5, dtype=torch.float64)
    assert torch.equal(graph.module(x).isfinite(), child.module(x).isfinite()), "finite where the parent is"


@pytest.mark.parametrize(
    "run",
    [
        lambda a, b: torch.log(F.softplus(a)),  # softplus(-1000) is 0
        lambda a, b: torch.log(F.softplus(a, beta=-1.0) + 1),  # a logarithm's negative
        lambda a, b: torch.sqrt(a.tanh() + 0.5),
        lambda a, b: a / (b.abs() - 1e-3),
        lambda a, b: torch.exp(F.softplus(a)) * b.sigmoid(),
        lambda a, b: 1 / F.elu(a),
        lambda a, b: torch.exp((s := F.softplus(a)) - torch.minimum(s, F.softplus(b))),
        lambda a, b: torch.exp((s := F.softplus(a)) - torch.min(s, F.softplus(b))),
        lambda a, b: torch.exp(F.softplus(a).masked_fill(b > 0, -math.inf)),
        lambda a, b: torch.exp(-F.softplus(a)[..., None] * torch.linspace(-1, 1, 4, dtype=a.dtype)).sum(-1),
        lambda a, b: torch.exp(torch.where(b > 0, F.softplus(a), -math.inf)),
        lambda a, b: a / (torch.relu(a) + 0.5).masked_fill(b > 0, 0.0),
        lambda a, b: torch.exp(torch.maximum(s := F.softplus(a), F.softplus(b)) - s),
        lambda a, b: torch.exp(torch.sub(s := F.softplus(a), torch.maximum(s, F.softplus(b)), alpha=0.5)),
        lambda a, b: torch.exp(F.softplus(a) - torch.maximum(F.softplus(a), F.softplus(b))),  # another softplus
        lambda a, b: 1 / torch.relu(a)[..., None].expand(-1, -1, 3).sum(-1),
        lambda a, b: torch.sqrt(torch.var_mean(a, 0, keepdim=True)[1] + 1e-5) * b,
        lambda a, b: torch.exp(torch.einsum("bi,bi->bi", F.softplus(a), b.sigmoid())),
        lambda a, b: 1 / (torch.relu(a) + (a.shape[0] - 3)),  # 1 on the example alone
        lambda a, b: torch.log(torch.relu(a) + (a.shape[0] / 2 - 1)),
        lambda a, b: torch.rsqrt(torch.relu(a) + (b.numel() - 27)),
        lambda a, b: torch.relu(a).clamp(min=a.shape[0] - 3).reciprocal(),
        lambda a, b: torch.exp(torch.sigmoid(a) * (a.shape[0] * a.shape[0])),
        lambda a, b: torch.relu(a) ** (a.shape[0] - 3),
        lambda a, b: torch.remainder(a, a.shape[0] - 3),
    ],
)
def test_what_may_reach_a_pole_is_declined(run: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(gg.Declined, match="may not be finite on new units"):
        gg.apply(_grown(run), "widen(a, extra=3)")


@pytest.mark.parametrize(
    "run",
    [
        lambda a, b: torch.relu(a) ** (a.shape[0] - 3),  # of a batch of 3, the zeroth power of zero is 1
        lambda a, b: a.clamp(min=2 - a.shape[0]),
        lambda a, b: F.hardtanh(a, 2.0 - a.shape[0], 9.0),
    ],
)
def test_what_keeps_zero_on_the_example_alone_is_not_summed_with_new_units(run: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(gg.Declined):
        gg.apply(_grown(lambda a, b: b * run(a, b).sum(-1, keepdim=True)), "widen(a, extra=3)")


class _GeneralisedMean(nn.Module):
    """Powers of maps are averaged, and a root is taken of the mean, by a number that is learned (GeM)."""

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.first, self.out, self.p = nn.Conv2d(2, 5, 3), nn.Linear(5, 2), nn.Parameter(torch.full((1,), power))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).clamp(min=1e-6).pow(self.p)
        result: torch.Tensor = self.out(F.avg_pool2d(x, (x.size(-2), x.size(-1))).pow(1.0 / self.p).flatten(1))
        return result


def test_units_behind_a_generalised_mean_are_appended() -> None:
    torch.manual_seed(0)
    graph = gg.trace(_GeneralisedMean(), torch.randn(2, 2, 6, 6))
    for text in ("widen(first, extra=2)", "split(first)"):
        child = gg.apply(graph, text)
        assert_preserved(graph, child)
        assert gg.verify(graph, child).preserved is True


@pytest.mark.parametrize("power", [-2.0, 40.0])  # of the smallest number that it is given there is infinity, or nothing
def test_a_generalised_mean_whose_powers_may_vanish_is_declined(power: float) -> None:
    graph = gg.trace(_GeneralisedMean(power), torch.randn(2, 2, 6, 6))
    with pytest.raises(gg.Declined, match="may not be finite on new units"):
        gg.apply(graph, "widen(first, extra=2)")


def test_a_small_number_that_the_type_rounds_to_zero_bounds_nothing() -> None:
    """x + 1e-12 is x in float16 wherever x is a normal number, and 0 at 0."""

    def run(a: Any, b: Any) -> Any:
        return torch.rsqrt(torch.relu(a) + 1e-12)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(5, 7), nn.Linear(7, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.out(run(self.a(x), None))
            return result

    graph = gg.trace(Model().half(), torch.randn(4, 5).half())
    with pytest.raises(gg.Declined):
        gg.apply(graph, "widen(a, extra=1)")
