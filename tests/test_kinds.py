"""Kinds of models that people write at home: what a user would expect to grow does, and any batch goes through."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg


class Perceiver(nn.Module):
    """Latents that look at the inputs, as many for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.latents, self.norm, self.seen = nn.Parameter(torch.randn(3, 8)), nn.LayerNorm(8), nn.LayerNorm(5)
        self.q, self.kv, self.out, self.head = nn.Linear(8, 8), nn.Linear(5, 16), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        latents = self.latents.unsqueeze(0).expand(len(x), -1, -1)
        q, (k, v) = self.q(self.norm(latents)), self.kv(self.seen(x)).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        result: torch.Tensor = self.head((latents + self.out(mixed)).mean(1))
        return result


class Modulated(nn.Module):
    """Convolutions scaled and shifted by an embedding of the time (FiLM), as in a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.time = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.Linear(6, 10), nn.SiLU())
        self.norm, self.film = nn.GroupNorm(4, 8), nn.Linear(10, 16)
        self.inner, self.out = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        speeds = torch.exp(-math.log(100.0) * torch.arange(3) / 3)
        angles = t[:, None].float() * speeds[None]
        x = self.first(x)
        scale, shift = self.film(self.time(torch.cat([angles.sin(), angles.cos()], -1)))[:, :, None, None].chunk(2, 1)
        result: torch.Tensor = self.out(x + self.inner(F.silu(self.norm(x) * (1 + scale) + shift)))
        return result


class Messages(nn.Module):
    """Two rounds of messages along the edges of a graph, added up at their targets, divided by how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.message = nn.Linear(4, 6), nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 6))
        self.update, self.head = nn.GRUCell(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        hidden, (source, target) = torch.relu(self.first(x)), (edges[0], edges[1])
        count = x.new_zeros(x.size(0)).scatter_add_(0, target, torch.ones_like(target, dtype=x.dtype)).clamp(min=1)
        for _ in range(2):
            message = self.message(torch.cat([hidden[source], hidden[target]], -1))
            hidden = self.update(torch.zeros_like(hidden).index_add(0, target, message) / count[:, None], hidden)
        result: torch.Tensor = self.head(hidden)
        return result


class Windowed(nn.Module):
    """Attention within shifted windows; the batch is counted back from the windows, as Swin's own code does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.qkv = nn.Conv2d(3, 6, 1), nn.LayerNorm(6), nn.Linear(6, 18)
        self.out, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        parts = torch.roll(self.norm(x), (-1, -1), (1, 2)).view(b, h // 2, 2, w // 2, 2, c)
        parts = parts.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(parts).reshape(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        mixed = ((q * (c // 2) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        parts = self.out(mixed.transpose(1, 2).reshape(-1, 4, c))
        b = int(parts.shape[0] / (h * w / 2 / 2))
        back = parts.view(b, h // 2, w // 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1)
        result: torch.Tensor = self.head((x + torch.roll(back, (1, 1), (1, 2))).mean((1, 2)))
        return result


class Scanned(nn.Module):
    """A selective state space, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixed, self.step = nn.Linear(4, 12, bias=False), nn.Linear(6, 8, bias=False), nn.Linear(2, 6)
        self.log, self.out = nn.Parameter(torch.log(torch.arange(1.0, 4.0)).repeat(6, 1)), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, gate = self.first(x).chunk(2, -1)
        rank, write, read = torch.split(self.mixed(F.silu(x)), [2, 3, 3], dim=-1)
        step = F.softplus(self.step(rank))
        decay = torch.exp(torch.einsum("bld,dn->bldn", step, -torch.exp(self.log)))
        written = torch.einsum("bld,bln,bld->bldn", step, write, x)
        state, answers = torch.zeros(len(x), x.shape[2], 3), []
        for i in range(x.shape[1]):
            state = decay[:, i] * state + written[:, i]
            answers.append(torch.einsum("bdn,bn->bd", state, read[:, i]))
        result: torch.Tensor = self.out(torch.stack(answers, 1) * F.silu(gate))
        return result


class Linearised(nn.Module):
    """Attention without a softmax, whose sums over the keys are divided by their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).view(*x.shape[:2], 2, -1) for part in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        weight = 1 / (torch.einsum("bnhd,bhd->bnh", q, k.sum(1)) + 1e-6)
        mixed = torch.einsum("bnhd,bhde,bnh->bnhe", q, torch.einsum("bnhd,bnhe->bhde", k, v), weight)
        result: torch.Tensor = self.out(mixed.flatten(2))
        return result


class Remembering(nn.Module):
    """A convolutional LSTM over the frames of a film."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.gates, self.head = 4, nn.Conv2d(6, 16, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, frames, _, h, w = x.shape
        hidden = memory = torch.zeros(b, self.width, h, w, device=x.device)
        for number in range(frames):
            i, f, o, g = torch.split(self.gates(torch.cat([x[:, number], hidden], 1)), self.width, dim=1)
            memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(memory)
        result: torch.Tensor = self.head(hidden)
        return result


class NormedGates(nn.Module):
    """A recurrent cell whose gates are normalised: all of them together, or each by itself."""

    def __init__(self, together: bool = True) -> None:
        super().__init__()
        self.together, self.width = together, 6
        self.read, self.loop = nn.Linear(4, 18), nn.Linear(6, 18, bias=False)
        widths = [18, 18] if together else [6] * 6
        self.norms, self.head = nn.ModuleList(map(nn.LayerNorm, widths)), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x.new_zeros(x.size(0), self.width)
        for number in range(x.size(1)):
            if self.together:
                read, loop = self.norms[0](self.read(x[:, number])), self.norms[1](self.loop(hidden))
                parts = [*read.chunk(3, 1), *loop.chunk(3, 1)]
            else:
                parts = [*self.read(x[:, number]).chunk(3, 1), *self.loop(hidden).chunk(3, 1)]
                parts = [norm(part) for norm, part in zip(self.norms, parts, strict=True)]
            reset, update = torch.sigmoid(parts[0] + parts[3]), torch.sigmoid(parts[1] + parts[4])
            hidden = update * hidden + (1 - update) * torch.tanh(parts[2] + reset * parts[5])
        result: torch.Tensor = self.head(hidden)
        return result


class EachGateNormed(NormedGates):
    """Each gate by itself."""

    def __init__(self) -> None:
        super().__init__(together=False)


class Reversible(nn.Module):
    """A stream in two halves, each of which the other is added to behind a norm (RevNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 12), nn.Linear(12, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6)) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.first(x).chunk(2, -1)
        for number in (0, 2):
            one = one + self.blocks[number](other)
            other = other + self.blocks[number + 1](one)
        result: torch.Tensor = self.head(torch.cat([one, other], -1))
        return result


def images(n: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(n, 3, 4, 4),)


def rows(n: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(n, 5, 4),)


Inputs = Callable[[int], tuple[torch.Tensor, ...]]
KINDS: dict[type[nn.Module], tuple[Inputs, list[str]]] = {
    Perceiver: (
        lambda n: (torch.randn(n, 7, 5),),
        ["widen(latents:axis2, extra=2)", "widen(q:heads, extra=1)", "split(out)"],
    ),
    Modulated: (lambda n: (*images(n), torch.arange(n)), ["widen(first:groups, extra=1)", "split(time.0)"]),
    Messages: (lambda n: (torch.randn(n, 4), torch.randint(n, (2, 9))), ["widen(first, extra=2)", "split(message.0)"]),
    Windowed: (images, ["widen(first, extra=2)", "add-heads(:softmax)", "split(qkv:2)"]),
    Scanned: (rows, ["widen(first:0, extra=2)", "split(first:0)", "widen(mixed:1, extra=2)"]),
    Linearised: (lambda n: (torch.randn(n, 5, 6),), ["widen(q:0, extra=1)", "split(v:1)"]),
    NormedGates: (rows, ["widen(read:0, extra=2)", "split(read:0)"]),
    EachGateNormed: (rows, ["widen(read:0, extra=2)", "split(read:0)"]),
    Reversible: (rows, ["widen(first:0, extra=2)", "widen(first:1, extra=1)", "split(blocks.0.1)"]),
    Remembering: (lambda n: (torch.randn(n, 3, 2, 4, 4),), ["widen(gates:0, extra=2)", "split(gates:0)"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_should_grow_does(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    inputs, texts = KINDS[kind]
    model: Any = kind().eval()
    graph = gg.trace(model, inputs(2 if kind is not Messages else 4))
    other = inputs(5)
    for text in texts:
        grown = gg.apply(graph, text, seed=1)
        verdict = gg.verify(graph, grown, batch_sizes=())
        assert verdict.preserved, f"{text}\n{verdict}"
        assert torch.allclose(grown.module(*other), model(*other), atol=1e-5)


@pytest.mark.parametrize("kind", [NormedGates, EachGateNormed])
def test_normed_gates_grow_several_times_in_one_list(kind: type[nn.Module]) -> None:
    """The last growth is of axes that have grown in place."""
    torch.manual_seed(0)
    model: Any = kind().double().eval()
    graph = gg.trace(model, rows(2)[0].double())
    grown = gg.apply(graph, ["widen(read:0, extra=1)", "split(read:0)", "widen(read:0, extra=2)"])
    assert gg.verify(graph, grown, batch_sizes=()).preserved
    x = rows(3)[0].double()
    assert torch.allclose(grown.module(x), model(x), rtol=0, atol=1e-12)
