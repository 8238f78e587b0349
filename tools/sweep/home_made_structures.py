"""Small models of structures that papers of 2023 to 2025 brought in, none of which the other files hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class _HyperConnections(nn.Module):
    """Several streams in one axis, mixed by a matrix that is computed from them around each block."""

    class Mixing(nn.Module):
        """Weights for what a block reads, what stays of each stream, and where the block's answer goes."""

        def __init__(self, width: int, streams: int, first: int) -> None:
            super().__init__()
            own = torch.cat([torch.eye(streams)[:, first : first + 1], torch.eye(streams)], 1)
            self.own, self.out = nn.Parameter(own), nn.Parameter(torch.ones(streams))
            self.read, self.write = nn.Parameter(0.1 * torch.randn(width, streams + 1)), nn.Linear(width, 1)
            self.norm, self.scale = nn.LayerNorm(width), nn.Parameter(torch.full((1,), 0.1))

        def forward(self, x: torch.Tensor) -> Any:
            seen = self.norm(x)
            weights = self.own + self.scale * torch.tanh(seen @ self.read)
            return weights.transpose(-1, -2) @ x, self.out + self.scale * torch.tanh(self.write(seen)).squeeze(-1)

    def __init__(self, width: int = 8, streams: int = 2) -> None:
        super().__init__()
        self.stem, self.head, self.streams = nn.Linear(5, width), nn.Linear(width, 3), streams
        self.mixing = nn.ModuleList(self.Mixing(width, streams, i) for i in range(streams))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10), nn.GELU(), nn.Linear(10, width))
            for _ in range(streams)
        )

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x).unsqueeze(2).expand(-1, -1, self.streams, -1)
        for mixing, block in zip(self.mixing, self.blocks, strict=True):
            mixed, out = mixing(x)
            x = mixed[..., 1:, :] + torch.einsum("bld,bls->blsd", block(mixed[..., 0, :]), out)
        return self.head(x.sum(2))


class _MixtureOfDepths(nn.Module):
    """Blocks that only the tokens of the highest scores pass through; the others go on as they are."""

    class Block(nn.Module):
        """Tokens are gathered, computed, and added where they came from."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.router, self.norm = nn.Linear(width, 1), nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))

        def forward(self, x: torch.Tensor) -> Any:
            scores, places = torch.topk(self.router(x).squeeze(-1), x.size(1) // 2, dim=1)
            index = places.unsqueeze(-1).expand(-1, -1, x.size(2))
            made = self.mlp(self.norm(torch.gather(x, 1, index)))
            return x.scatter_add(1, index, made * torch.sigmoid(scores).unsqueeze(-1))

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Linear(5, width), nn.Sequential(self.Block(width), self.Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(self.blocks(self.stem(x))))


class _StructuredStateSpace(nn.Module):
    """One decay for each head and step, of which sums over segments make a causal matrix (Mamba-2)."""

    def __init__(self, width: int = 8, heads: int = 2, head: int = 6, state: int = 4) -> None:
        super().__init__()
        self.heads, self.inner, self.state = heads, heads * head, state
        mixed = self.inner + 2 * state
        self.stem, self.norm_in = nn.Linear(5, width), nn.RMSNorm(width)
        self.make, self.last = nn.Linear(width, self.inner + mixed + heads), nn.Linear(self.inner, width)
        self.convolution = nn.Conv1d(mixed, mixed, 3, groups=mixed, padding=2)
        self.bias, self.rates, self.skip = (nn.Parameter(torch.rand(heads)) for _ in range(3))
        self.norm, self.head = nn.RMSNorm(self.inner), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        batch, length, _ = x.shape
        sizes = [self.inner, self.inner + 2 * self.state, self.heads]
        gate, mixed, step = torch.split(self.make(self.norm_in(x)), sizes, -1)
        mixed = F.silu(self.convolution(mixed.transpose(1, 2))[..., :length].transpose(1, 2))
        h, into, out = torch.split(mixed, [self.inner, self.state, self.state], -1)
        h, step = h.view(batch, length, self.heads, -1), F.softplus(step + self.bias)
        decay = (-torch.exp(self.rates) * step).transpose(1, 2).unsqueeze(-1).expand(-1, -1, -1, length)
        below = torch.ones(length, length, dtype=torch.bool).tril(-1)
        sums = decay.masked_fill(~below, 0).cumsum(-2)
        sums = sums.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), -torch.inf)
        y = torch.einsum("bln,bsn,bhls,bshp->blhp", out, into, torch.exp(sums), h * step.unsqueeze(-1))
        y = (y + h * self.skip.unsqueeze(-1)).reshape(batch, length, -1)
        return self.head(x + self.last(self.norm(y * F.silu(gate))))


class _DifferentialAttention(nn.Module):
    """What one half of the heads attends to, less what the other half does; a norm over each pair of heads."""

    def __init__(self, width: int = 8, pairs: int = 2) -> None:
        super().__init__()
        self.pairs, self.part, self.stem = pairs, width // pairs // 2, nn.Linear(5, width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.one, self.two = (nn.Parameter(0.3 * torch.randn(2, self.part)) for _ in range(2))
        self.norm, self.pair_norm, self.head = nn.RMSNorm(width), nn.RMSNorm(2 * self.part), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        batch, length, _ = x.shape
        h = self.norm(x)
        q, k = (layer(h).view(batch, length, 2 * self.pairs, self.part).transpose(1, 2) for layer in (self.q, self.k))
        v = self.v(h).view(batch, length, self.pairs, 2 * self.part).transpose(1, 2)
        later = torch.full((length, length), -torch.inf).triu(1)
        shares = F.softmax(q @ k.transpose(-1, -2) * self.part**-0.5 + later, -1)
        shares = shares.view(batch, self.pairs, 2, length, length)
        taken = torch.exp((self.one[0] * self.one[1]).sum()) - torch.exp((self.two[0] * self.two[1]).sum()) + 0.4
        y = self.pair_norm((shares[:, :, 0] - taken * shares[:, :, 1]) @ v)
        return self.head(x + self.out(y.transpose(1, 2).reshape(batch, length, -1)))


class _LatentAttention(nn.Module):
    """Keys and values from a narrow latent, positions in a part of the width that all heads share (MLA)."""

    def __init__(self, width: int = 8, heads: int = 2, plain: int = 4, turned: int = 4, value: int = 3) -> None:
        super().__init__()
        self.heads, self.plain, self.turned, self.value = heads, plain, turned, value
        self.stem, self.norm, self.head = nn.Linear(5, width), nn.RMSNorm(width), nn.Linear(width, 3)
        self.q_down, self.q_norm = nn.Linear(width, 6, bias=False), nn.RMSNorm(6)
        self.q_up = nn.Linear(6, heads * (plain + turned), bias=False)
        self.down, self.latent_norm = nn.Linear(width, 5 + turned, bias=False), nn.RMSNorm(5)
        self.up, self.out = nn.Linear(5, heads * (plain + value), bias=False), nn.Linear(heads * value, width)

    def _turn(self, x: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(x.size(-2)).unsqueeze(-1) * 10.0 ** -torch.arange(0, self.turned, 2)
        one, two = x.chunk(2, -1)
        return torch.cat([one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()], -1)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        batch, length, _ = x.shape
        h = self.norm(x)
        q = self.q_up(self.q_norm(self.q_down(h))).view(batch, length, self.heads, -1).transpose(1, 2)
        q, q_turned = q.split([self.plain, self.turned], -1)
        latent, k_turned = self.down(h).split([5, self.turned], -1)
        kv = self.up(self.latent_norm(latent)).view(batch, length, self.heads, -1).transpose(1, 2)
        k, v = kv.split([self.plain, self.value], -1)
        k = torch.cat([k, self._turn(k_turned.unsqueeze(1)).expand(-1, self.heads, -1, -1)], -1)
        y = F.scaled_dot_product_attention(torch.cat([q, self._turn(q_turned)], -1), k, v, is_causal=True)
        return self.head(x + self.out(y.transpose(1, 2).flatten(2)))


class _GatedDelta(nn.Module):
    """A memory that decays, and from which each key's old value is taken before the new one is put in."""

    def __init__(self, width: int = 8, heads: int = 2, key: int = 3, value: int = 4) -> None:
        super().__init__()
        self.heads, self.value, self.stem, self.head = heads, value, nn.Linear(5, width), nn.Linear(width, 3)
        self.q, self.k = (nn.Linear(width, heads * key, bias=False) for _ in range(2))
        self.v, self.gate = (nn.Linear(width, heads * value, bias=False) for _ in range(2))
        self.decay, self.strength, self.rates = (
            nn.Linear(width, heads),
            nn.Linear(width, heads),
            nn.Parameter(torch.rand(2)),
        )
        self.norm, self.value_norm, self.out = nn.RMSNorm(width), nn.RMSNorm(value), nn.Linear(heads * value, width)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        h, (batch, length, _) = self.norm(x), x.shape
        q, k, v = (layer(h).view(batch, length, self.heads, -1) for layer in (self.q, self.k, self.v))
        q, k, put = F.normalize(q, dim=-1), F.normalize(k, dim=-1), torch.sigmoid(self.strength(h)).unsqueeze(-1)
        kept = torch.exp(-self.rates.exp() * F.softplus(self.decay(h)))[..., None, None]
        memory, read = x.new_zeros(batch, self.heads, k.size(-1), v.size(-1)), []
        for step in range(length):
            memory = memory * kept[:, step]
            old = torch.einsum("bhk,bhkv->bhv", k[:, step], memory)
            memory = memory + k[:, step].unsqueeze(-1) * ((v[:, step] - old) * put[:, step]).unsqueeze(-2)
            read.append(torch.einsum("bhk,bhkv->bhv", q[:, step], memory))
        y = self.value_norm(torch.stack(read, 1)) * F.silu(self.gate(h)).view(batch, length, self.heads, -1)
        return self.head(x + self.out(y.flatten(2)))


class _NormedCell(nn.Module):
    """An LSTM's cell whose state is layer-normed before it leaves: splits of all units go, and nothing else."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.read, self.loop = nn.Linear(4, 4 * width), nn.Linear(width, 4 * width, bias=False)
        self.norm_read, self.norm_loop, self.norm = (
            nn.LayerNorm(4 * width),
            nn.LayerNorm(4 * width),
            nn.LayerNorm(width),
        )
        self.width, self.head = width, nn.Sequential(nn.Linear(width, 7), nn.ReLU(), nn.Linear(7, 2))

    def forward(self, x: torch.Tensor) -> Any:
        hidden = cell = x.new_zeros(x.size(0), self.width)
        for step in range(x.size(1)):
            i, f, g, o = (self.norm_read(self.read(x[:, step])) + self.norm_loop(self.loop(hidden))).chunk(4, 1)
            cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(self.norm(cell))
        return self.head(hidden)


class _SkewOscillator(nn.Module):
    """A recurrence by a skew-symmetric matrix, energies by a symmetric one, and normed queries and keys between."""

    def __init__(self, width: int = 6, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.first, self.last = heads, nn.Linear(4, width), nn.Linear(width + 1, 2)
        self.turning, self.energy = (nn.Parameter(torch.randn(width, width) / math.sqrt(width)) for _ in range(2))
        self.bias, self.qkv, self.out = nn.Parameter(torch.zeros(width)), nn.Linear(width, 24), nn.Linear(8, width)
        self.norm_q, self.norm_k = nn.LayerNorm(4), nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.tanh(self.first(x))
        skew = self.turning - self.turning.t()
        for _ in range(3):
            h = h + 0.1 * torch.tanh(F.linear(h, skew, self.bias))
        q, k, v = self.qkv(h).view(*h.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)
        h = h + self.out(y.transpose(1, 2).flatten(2))
        energy = ((h @ (self.energy + self.energy.t())) * h).sum(-1, keepdim=True)
        return self.last(torch.cat([h, energy], -1))


_Built = tuple[nn.Module, tuple[torch.Tensor, ...]]

STRUCTURES: dict[str, Callable[[], _Built]] = {
    "hyper-connections": lambda: (_HyperConnections(), (torch.randn(2, 4, 5),)),
    "mixture-of-depths": lambda: (_MixtureOfDepths(), (torch.randn(2, 6, 5),)),
    "structured-state-space": lambda: (_StructuredStateSpace(), (torch.randn(2, 6, 5),)),
    "differential-attention": lambda: (_DifferentialAttention(), (torch.randn(2, 5, 5),)),
    "latent-attention": lambda: (_LatentAttention(), (torch.randn(2, 5, 5),)),
    "gated-delta": lambda: (_GatedDelta(), (torch.randn(2, 4, 5),)),
    "normed-cell": lambda: (_NormedCell(), (torch.randn(2, 3, 4),)),
    "skew-oscillator": lambda: (_SkewOscillator(), (torch.randn(2, 5, 4),)),
}
"""By name, a model and its example inputs, drawn from torch's generator."""
