"""Norms, states and heads that a model spells out itself: their axes grow, exactly, in eval and train mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.store.names import import_torchvision
from tests.preserved import assert_preserved

Forward = Callable[[Any, Any], Any]


class _Model(nn.Module):
    def __init__(self, run: Forward, **modules: nn.Module) -> None:
        super().__init__()
        self._run = run
        self.gain, self.shift = nn.Parameter(torch.rand(12) + 0.5), nn.Parameter(torch.randn(12))
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._run(self, x)
        return result


def _normed(norm: Forward) -> Callable[[], nn.Module]:
    def run(m: Any, x: Any) -> Any:
        x = m.first(x)
        return m.last(x + m.down(torch.relu(m.up(norm(m, x)))))

    return lambda: _Model(
        run, first=nn.Linear(5, 12), up=nn.Linear(12, 7), down=nn.Linear(7, 12), last=nn.Linear(12, 3)
    )


def _rms(m: Any, x: Any) -> Any:
    return m.gain * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6))


def _layer(m: Any, x: Any) -> Any:
    mean = x.mean(-1, keepdim=True)
    return m.gain * (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5) + m.shift


def _by_deviation(m: Any, x: Any) -> Any:
    return m.gain * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + m.shift


def _by_pair(m: Any, x: Any) -> Any:
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + 1e-5) * m.gain + m.shift


def _without_weight(m: Any, x: Any) -> Any:
    return F.layer_norm(x, (12,)) * m.gain + m.shift


def _recurrent() -> nn.Module:
    """A gated recurrent unit from linear maps, whose state starts with zeros."""

    def run(m: Any, x: Any) -> Any:
        state = torch.zeros(x.size(0), 4)
        for step in range(x.size(1)):
            reset, update, new = m.inputs(x[:, step]).chunk(3, 1)
            r, u, n = m.states(state).chunk(3, 1)
            update = torch.sigmoid(update + u)
            state = update * state + (1 - update) * torch.tanh(new + torch.sigmoid(reset + r) * n)
        return m.last(state)

    return _Model(run, inputs=nn.Linear(5, 12), states=nn.Linear(4, 12), last=nn.Linear(4, 3))


def _heads_in_the_batch() -> nn.Module:
    """Attention over (batch heads, length, width), as torch.bmm wants it."""

    def run(m: Any, x: Any) -> Any:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, 3, 4).transpose(1, 2).reshape(b * 3, n, 4) for f in (m.q, m.k, m.v))
        mixed = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) / 2, -1), v)
        return m.last(mixed.view(b, 3, n, 4).transpose(1, 2).reshape(b, n, -1))

    return _Model(run, q=nn.Linear(5, 12), k=nn.Linear(5, 12), v=nn.Linear(5, 12), last=nn.Linear(12, 3))


def _einops() -> nn.Module:
    def run(m: Any, x: Any) -> Any:
        q, k, v = (einops.rearrange(f(x), "b n (h d) -> b h n d", h=3) for f in (m.q, m.k, m.v))
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        return m.last(einops.rearrange(mixed, "b h n d -> b n (h d)")) + einops.reduce(x, "b n d -> b 1 1", "mean")

    return _Model(run, q=nn.Linear(5, 12), k=nn.Linear(5, 12), v=nn.Linear(5, 12), last=nn.Linear(12, 3))


# model -> mutations that must be offered, among those that are all tried
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "RMS norm": (_normed(_rms), ("widen(first,", "split(first)")),
    "layer norm": (_normed(_layer), ("widen(first,", "split(first)")),
    "layer norm by std": (_normed(_by_deviation), ("widen(first,", "split(first)")),
    "layer norm by var_mean": (_normed(_by_pair), ("widen(first,", "split(first)")),
    "layer norm without a weight": (_normed(_without_weight), ("widen(first,", "split(first)")),
    "recurrent": (_recurrent, ("widen(inputs:0,", "split(inputs:0)")),
    "heads in the batch": (_heads_in_the_batch, ("widen(q:0,", "widen(q:1,", "split(q:0)")),
    "einops": (_einops, ("widen(q:0,", "widen(q:1,", "split(q:0)")),
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_listed_growth_is_preserved(name: str) -> None:
    build, expected = MODELS[name]
    torch.manual_seed(0)
    graph = gg.trace(build(), torch.randn(2, 6, 5))
    mutations = [mutation for kind in ("widen", "split") for mutation in graph.mutations(kind)]
    for start in expected:
        assert any(str(mutation).startswith(start) for mutation in mutations), graph.explain()
    for mutation in mutations:
        verdict = gg.verify(graph, gg.apply(graph, mutation, seed=1), batch_sizes=(1, 3))
        assert verdict.preserved, f"{mutation}\n{verdict}"


def _behind(change: Forward) -> nn.Module:
    return _Model(lambda m, x: m.last(change(m, m.first(x))), first=nn.Linear(5, 12), last=nn.Linear(12, 3))


# model -> the pass that would need a factor which no number is, or which something else would see
REFUSED: dict[str, tuple[Forward, str]] = {
    "a deviation over the batch too, whose count is corrected": (lambda m, h: h / (h.std() + 1.0), "split"),
    "a variance over the tokens too, whose count is corrected": (lambda m, h: h / h.var((1, 2), keepdim=True), "split"),
    "a gain that shifts too": (lambda m, h: F.layer_norm(h, (12,), m.gain, m.gain), "widen"),
    "places of a maximum": (lambda m, h: h.tanh() + h.max(-1, keepdim=True).indices, "split"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_factor_is_refused(name: str) -> None:
    change, kind = REFUSED[name]
    graph = gg.trace(_behind(change), torch.randn(2, 6, 5))
    assert not [str(mutation) for mutation in graph.mutations(kind) if "first" in str(mutation)]


def test_a_view_to_the_size_of_another_axis_has_no_channels() -> None:
    """Height and channels agree on the example alone."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.first(x)
        n, channels, height, width = h.shape
        turned = torch.relu(h.view(n, height, channels, width)).transpose(1, 2)
        result: torch.Tensor = m.last(turned)
        return result

    model = _Model(run, first=nn.Conv2d(3, 5, 3, padding=1), last=nn.Conv2d(5, 2, 1))
    graph = gg.trace(model, torch.randn(2, 3, 5, 4))
    assert graph.module(torch.randn(2, 3, 7, 4)).shape == (2, 2, 7, 4)
    for kind in ("deepen", "widen", "split"):
        assert not list(graph.mutations(kind))


def test_windows_of_a_square_image_leave_channels_free() -> None:
    """Height and width agree on the example too, but neither ever grows: torchvision's Swin is as free as ever."""
    import_torchvision()
    from torchvision.models import SwinTransformer

    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 8, [2, 2, 2], [2, 2, 2], [7, 7], num_classes=3, stochastic_depth_prob=0.0).double()
    graph = gg.trace(model.eval(), torch.randn(2, 3, 64, 64).double())
    assert not [group.name for group in graph.groups if "equal on the example" in str(group.frozen)]
    assert_preserved(graph, gg.apply(graph, "add-heads(features.1.0.attn)", seed=1))


def test_a_vector_that_reads_a_stream_has_clean_ups_too() -> None:
    graph = gg.trace(_behind(lambda m, h: h * (h @ m.gain).unsqueeze(-1)), torch.randn(2, 6, 5))
    assert "widen(first, extra=6)" in map(str, graph.mutations())
    assert not list(graph.mutations("drop-units"))


def test_a_deviation_over_all_of_a_weight_is_corrected() -> None:
    """Its sizes are those of every call."""
    torch.manual_seed(0)
    model = _behind(lambda m, h: F.linear(h, (m.square - m.square.mean()) / m.square.std()))
    model.square = nn.Parameter(torch.randn(12, 12))
    graph = gg.trace(model, torch.randn(2, 6, 5))
    assert "split(first)" in map(str, graph.mutations("split"))
    verdict = gg.verify(graph, gg.apply(graph, "split(first)", seed=1), batch_sizes=(1, 3))
    assert verdict.preserved, verdict


def test_a_statistic_is_corrected_once_whatever_grows_in_a_row() -> None:
    torch.manual_seed(0)
    graph = gg.trace(_normed(_rms)(), torch.randn(2, 6, 5))
    grown = gg.apply(graph, ["widen(first, extra=3)", "widen(first, extra=5)", "split(first)"])
    assert gg.verify(graph, grown).preserved
    factors = [node.args[1] for node in grown.module.graph.nodes if str(node.name).startswith("mean")
               and isinstance(node.args[1], float)]  # fmt: skip
    assert factors == [pytest.approx(20 / 12)]
