"""Diagonal state spaces (S4D): parameters behind functions with poles, and exponentials of complex numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg


class Diagonal(nn.Module):
    """A kernel from `exp(dt A)`, and a long convolution by Fourier transforms, as Gu et al. 2022 write it."""

    def __init__(self, width: int = 6, states: int = 4) -> None:
        super().__init__()
        self.log_dt, self.c = nn.Parameter(torch.rand(width)), nn.Parameter(torch.randn(width, states, 2))
        self.log_a, self.turns = nn.Parameter(torch.randn(width, states)), nn.Parameter(torch.randn(width, states))
        self.d = nn.Parameter(torch.randn(width))
        self.into, self.out = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = self.into(x).transpose(1, 2)
        length = u.shape[-1]
        a = -torch.exp(self.log_a) + 1j * self.turns
        step = a * torch.exp(self.log_dt).unsqueeze(-1)
        c = torch.view_as_complex(self.c) * (torch.exp(step) - 1.0) / a
        times = step.unsqueeze(-1) * torch.arange(length)
        kernel = 2 * torch.einsum("hn,hnl->hl", c, torch.exp(times)).real
        waves = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        y = torch.fft.irfft(waves, n=2 * length)[..., :length] + u * self.d.unsqueeze(-1)
        result: torch.Tensor = self.out(F.gelu(y).transpose(1, 2))
        return result


def _largest_error(one: nn.Module, other: nn.Module, *shape: int) -> float:
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine, theirs = (copy.deepcopy(module).double()(x) for module in (one, other))
    return float((mine - theirs).detach().abs().max() / mine.detach().abs().max())


@pytest.mark.parametrize(
    "mutations", ["widen(into, extra=3)", "widen(log_a, extra=2)", ["widen(into, extra=2)", "split(log_a)"]]
)
def test_width_and_states_grow(mutations: Any) -> None:
    """New channels start with the dynamics of the first, where `/ a` is finite, and with maps of their own."""
    torch.manual_seed(0)
    model = Diagonal()
    graph = gg.trace(model, torch.randn(2, 7, 3))
    grown = gg.apply(graph, mutations)
    for length in (7, 4, 13):
        assert _largest_error(model, grown.module, 3, length, 3) < 1e-13
    verdict = gg.verify(graph, grown, modes=("eval", "gradients", "alive"))
    assert verdict.preserved, verdict


class PerUnit(nn.Module):
    """Something done to a hidden layer with one number for each unit."""

    def __init__(self, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.run, self.scale = run, nn.Parameter(torch.rand(6) + 1.5)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.run(torch.relu(self.first(x)), self.scale))
        return result


@pytest.mark.parametrize(
    "run",
    [
        lambda h, s: h / s,
        lambda h, s: h * torch.log(s),
        lambda h, s: h / torch.sqrt(s - 1) + torch.where(h > 0, s, 1.0).detach(),
        lambda h, s: h * torch.rsqrt(torch.cat([s, s]).chunk(2)[1] * 2 - 1),
    ],
)
def test_parameters_in_front_of_a_pole_repeat_the_first_unit(run: Callable[[Any, Any], Any]) -> None:
    torch.manual_seed(0)
    model = PerUnit(run)
    graph = gg.trace(model, torch.randn(3, 4))
    grown = gg.apply(graph, "widen(first, extra=3)")
    scale = grown.module.get_parameter("scale")
    assert torch.equal(scale, model.scale[[0, 1, 2, 3, 4, 5, 0, 0, 0]])
    assert _largest_error(model, grown.module, 5, 4) < 1e-13
    assert gg.verify(graph, grown, modes=("eval", "gradients", "alive")).preserved


@pytest.mark.parametrize(
    "run",
    [
        lambda h, s: torch.log(h * s),  # infinite on the first unit for some inputs alone: then a copy times 0 is NaN
        lambda h, s: s / h,
        lambda h, s: h / (F.dropout(s, 0.5) - 1.0),  # drawn for each unit
        lambda h, s: h / (s + torch.randn_like(s)),
    ],
)
def test_what_an_input_or_chance_has_a_part_in_is_not_repeated(run: Callable[[Any, Any], Any]) -> None:
    graph = gg.trace(PerUnit(run), torch.randn(3, 4))
    with pytest.raises(gg.Declined, match="may not be finite on new units"):
        gg.apply(graph, "widen(first, extra=3)")


class Averaged(nn.Module):
    """Divides by an average that its own calls change."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.ones(6))
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        result: torch.Tensor = self.last(h / self.average)
        with torch.no_grad():
            self.average.copy_(h.detach().mean(0))
        return result


def test_a_buffer_that_calls_change_is_not_repeated() -> None:
    with pytest.raises(gg.Declined, match="may not be finite on new units"):
        gg.apply(gg.trace(Averaged(), torch.randn(3, 4)), "widen(first, extra=3)")


@pytest.mark.parametrize(
    ("run", "low", "high"),
    [
        (lambda h, s: -torch.exp(s) + 1j * h, -torch.inf, 0.0),
        (lambda h, s: (1j * h - torch.exp(s)) * torch.relu(h), -torch.inf, 0.0),
        (lambda h, s: (2.0 + 1j * h) / torch.exp(s).clamp(0.25, 4.0), 0.5, 8.0),
        (lambda h, s: (1j * h) * (1j * h), -torch.inf, torch.inf),  # of two of them, the real part is anything
        (lambda h, s: torch.exp(h) / (1j * h + 1.0), -torch.inf, torch.inf),
        (lambda h, s: torch.square(1j * h + 1.0), -torch.inf, torch.inf),
        (lambda h, s: torch.abs(1j * h + 1.0), -torch.inf, torch.inf),  # the length is more than the real part
    ],
)
def test_bounds_of_complex_numbers_are_those_of_their_real_parts(
    run: Callable[[Any, Any], Any], low: float, high: float
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.s = nn.Parameter(torch.randn(6))

        def forward(self, h: torch.Tensor) -> Any:
            return run(h, self.s)

    h = 3 * torch.randn(5, 6)
    graph = gg.trace(Model(), h)
    output = next(iter(graph.module.graph.find_nodes(op="output"))).args[0]
    bounds = graph.analysis.facts[output].flows[0][0].bounds
    assert (bounds.low, bounds.high) == (low, high)
    real = graph.module(h).real
    assert bool(((real >= low) & (real <= high)).all())
