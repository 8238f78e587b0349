"""Models with complex weights: a Fourier neural operator, and linear maps of complex numbers that are put out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg


class Spectral(nn.Module):
    """The lowest frequencies of each channel mixed by complex weights, as Li et al. 2021 write it."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.width, self.modes = width, modes
        self.low, self.high = (
            nn.Parameter(0.3 * torch.randn(width, width, modes, modes, dtype=torch.cfloat)) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        waves, m = torch.fft.rfft2(x), self.modes
        mixed = torch.zeros(b, self.width, h, w // 2 + 1, dtype=torch.cfloat, device=x.device)
        mixed[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", waves[:, :, :m, :m], self.low)
        mixed[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", waves[:, :, -m:, :m], self.high)
        return torch.fft.irfft2(mixed, s=(h, w))


class Operator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.spectral, self.beside = nn.Conv2d(2, 6, 1), Spectral(6, 2), nn.Conv2d(6, 6, 1)
        self.out = nn.Sequential(nn.Conv2d(6, 5, 1), nn.GELU(), nn.Conv2d(5, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lift(x)
        result: torch.Tensor = self.out(F.gelu(self.spectral(x) + self.beside(x)))
        return result


class Phases(nn.Module):
    """Complex linear maps alone, with an activation of the two parts, and of the length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(i, o, dtype=torch.cfloat) for i, o in ((3, 6), (6, 5), (5, 2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.a(torch.complex(x, 0.5 * x))
        hidden = self.b(torch.complex(torch.relu(hidden.real), torch.relu(hidden.imag)))
        result: torch.Tensor = self.c(hidden * torch.sigmoid(hidden.abs()))
        return result


def traced(kind: type[nn.Module]) -> tuple[nn.Module, gg.Graph]:
    torch.manual_seed(0)
    model = kind()
    x = torch.randn(2, 2, 8, 8) if kind is Operator else torch.randn(4, 3)
    return model, gg.trace(model, x)


@pytest.mark.parametrize("kind", [Operator, Phases])
def test_every_listed_mutation_is_preserved(kind: type[nn.Module]) -> None:
    _, graph = traced(kind)
    mutations = list(graph.mutations())
    first = "lift" if kind is Operator else "a"
    assert {f"widen({first}, extra=3)", f"split({first})"} <= {str(mutation) for mutation in mutations}
    for mutation in mutations:
        verdict = gg.verify(graph, gg.apply(graph, mutation, seed=1), batch_sizes=())
        assert verdict.preserved, f"{mutation}\n{verdict}"


@pytest.mark.parametrize("text", ["widen(spectral, extra=2)", "split(spectral)"])
def test_all_that_is_verified(text: str) -> None:
    model, graph = traced(Operator)
    grown = gg.apply(graph, text)
    verdict = gg.verify(graph, grown, modes="all")
    assert verdict.preserved, verdict
    assert any("float16: not compared, the model has complex weights" in note for note in verdict.notes)
    assert {p.dtype for p in grown.module.parameters()} == {p.dtype for p in model.parameters()}


def test_a_wrong_entry_is_seen() -> None:
    _, graph = traced(Phases)
    grown = gg.apply(graph, "split(a)")
    with torch.no_grad():
        grown.module.get_parameter("b.weight")[0, 0] *= 1 + 1e-4j
    assert gg.verify(graph, grown).preserved is False


def test_growing_and_cleaning_up_again_returns_the_model() -> None:
    model, graph = traced(Phases)
    for text in ("widen(b, extra=2)", "split(a)"):
        cleaned = gg.clean(gg.apply(graph, text))
        assert {name: tuple(p.shape) for name, p in cleaned.module.named_parameters()} == {
            name: tuple(p.shape) for name, p in model.named_parameters()
        }


def test_the_state_of_an_optimizer_goes_along() -> None:
    """Both parts of a share's state are scaled: one more step of the copy is one of the model, read through both."""
    model, graph = traced(Phases)
    optimizer = torch.optim.Adam(graph.module.parameters(), 1e-2)
    x = torch.randn(8, 3)
    for _ in range(3):
        optimizer.zero_grad()
        graph.module(x).abs().square().mean().backward()
        optimizer.step()
    before = copy.deepcopy(optimizer.state[model.get_parameter("a.weight")]["exp_avg"])
    grown = gg.apply(graph, "widen(a, extra=2)", optimizer=optimizer)
    state = optimizer.state[grown.module.get_parameter("a.weight")]
    assert torch.equal(state["exp_avg"][:6], before)
    assert not bool(state["exp_avg"][6:].any())
    grown.module(x).abs().square().mean().backward()
    optimizer.step()
    assert bool(grown.module(x).isfinite().all())
