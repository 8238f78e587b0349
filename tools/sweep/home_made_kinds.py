"""More small models of modules within modules, each of a structure that neither `home_made` nor its classes hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class _ShuffledHalves(nn.Module):
    """Half of the channels go through a branch, then both halves are interleaved (ShuffleNet V2)."""

    class Unit(nn.Module):
        """One unit; with a stride both halves are computed from all channels."""

        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            half, self.stride = width // 2, stride
            if stride > 1:
                self.side = nn.Sequential(
                    nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
                    nn.BatchNorm2d(channels), nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
                )  # fmt: skip
            self.main = nn.Sequential(
                nn.Conv2d(channels if stride > 1 else half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
                nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False), nn.BatchNorm2d(half),
                nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> Any:
            left, right = (self.side(x), x) if self.stride > 1 else x.chunk(2, dim=1)
            x = torch.cat((left, self.main(right)), dim=1)
            batch, channels, height, width = x.data.size()
            x = x.view(batch, 2, channels // 2, height, width)
            return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 1, 1)
        self.units, self.head = nn.Sequential(self.Unit(6, 8, 2), self.Unit(8, 8, 1)), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.units(self.stem(x)).mean([2, 3]))


class _Volumes(nn.Module):
    """A U-Net over volumes: norms in front of convolutions, up to the size of the skip, softmax in eval mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self._double(1, 4, 6), self._double(6, 6, 8)
        self.up, self.merge = nn.ConvTranspose3d(8, 8, 3, stride=2, padding=1), self._double(14, 6, 6)
        self.head = nn.Conv3d(6, 2, 1)

    @staticmethod
    def _double(*widths: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before, behind in itertools.pairwise(widths):
            layers += [nn.GroupNorm(2 if before % 2 == 0 else 1, before)]
            layers += [nn.Conv3d(before, behind, 3, padding=1, bias=False), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> Any:
        skip = self.down1(x)
        up = self.up(self.down2(F.max_pool3d(skip, 2)), output_size=skip.size()[2:])
        y = self.head(self.merge(torch.cat((skip, up), dim=1)))
        return y if self.training else torch.softmax(y, dim=1)


class _OuterProductMemory(nn.Module):
    """Keys by values, faded at each step, read by receptances, with a bonus for what is new (RWKV-5)."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.embed, self.norm, self.head = nn.Embedding(9, width), nn.LayerNorm(width), nn.Linear(width, 9, bias=False)
        self.mix_r, self.mix_k, self.mix_v, self.mix_g = (nn.Parameter(torch.rand(1, 1, width)) for _ in range(4))
        self.r, self.k, self.v, self.g, self.out = (nn.Linear(width, width, bias=False) for _ in range(5))
        self.decay, self.bonus = (nn.Parameter(torch.rand(heads, width // heads)) for _ in range(2))
        self.group_norm, self.shift = nn.GroupNorm(heads, width), nn.ZeroPad2d((0, 0, 1, -1))

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        batch, length, width = x.shape
        y = self.norm(x)
        before = self.shift(y)
        r, k, v = (
            layer(y * mix + before * (1 - mix)).view(batch, length, self.heads, self.size)
            for layer, mix in ((self.r, self.mix_r), (self.k, self.mix_k), (self.v, self.mix_v))
        )
        gate, fading = F.silu(self.g(y * self.mix_g + before * (1 - self.mix_g))), torch.exp(-torch.exp(self.decay))
        memory, seen = torch.zeros(batch, self.heads, self.size, self.size), []
        for t in range(length):
            new = k[:, t].unsqueeze(-1) @ v[:, t].unsqueeze(-2)
            seen.append((r[:, t].unsqueeze(-2) @ (self.bonus.unsqueeze(-1) * new + memory)).squeeze(-2))
            memory = new + fading.unsqueeze(-1) * memory
        mixed = self.group_norm(torch.stack(seen, 1).reshape(batch * length, width)).view(batch, length, width)
        return self.head(x + self.out(mixed * gate))


class _StateSpace(nn.Module):
    """A long convolution by Fourier transforms, with a kernel of complex exponentials (S4D)."""

    def __init__(self, width: int = 6, states: int = 4) -> None:
        super().__init__()
        self.encode, self.norm = nn.Linear(3, width), nn.LayerNorm(width)
        self.decode = nn.Sequential(nn.Linear(width, 5), nn.GELU(), nn.Linear(5, 2))
        self.log_step, self.skip = nn.Parameter(torch.rand(width) - 3), nn.Parameter(torch.randn(width))
        self.readout, self.log_decay = (
            nn.Parameter(torch.randn(width, states, 2)),
            nn.Parameter(-torch.rand(width, states)),
        )
        self.frequency = nn.Parameter(math.pi * torch.arange(states).float().repeat(width, 1))
        self.mix = nn.Sequential(nn.Conv1d(width, 2 * width, 1), nn.GLU(dim=-2))

    def _kernel(self, length: int) -> Any:
        poles = -torch.exp(self.log_decay) + 1j * self.frequency
        steps = poles * torch.exp(self.log_step).unsqueeze(-1)
        weights = torch.view_as_complex(self.readout) * (torch.exp(steps) - 1.0) / poles
        waves = torch.exp(steps.unsqueeze(-1) * torch.arange(length))
        return 2 * torch.einsum("hn,hnl->hl", weights, waves).real

    def forward(self, x: torch.Tensor) -> Any:
        x = self.encode(x)
        u = x.transpose(-1, -2)
        length = u.size(-1)
        kernel = torch.fft.rfft(self._kernel(length), n=2 * length)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * kernel, n=2 * length)[..., :length]
        y = self.mix(F.gelu(y + u * self.skip.unsqueeze(-1))).transpose(-1, -2)
        return self.decode(self.norm(x + y).mean(1))


class _Equivariant(nn.Module):
    """Messages by distances move nodes along their edges; features are turned by no rotation (EGNN)."""

    class Layer(nn.Module):
        """One round of messages."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.edge = nn.Sequential(nn.Linear(2 * width + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            self.node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
            self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1, bias=False))
            self.attend = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())

        def forward(self, h: torch.Tensor, x: torch.Tensor, edges: torch.Tensor) -> Any:
            row, column = edges
            between = x[row] - x[column]
            sent = self.edge(torch.cat([h[row], h[column], between.square().sum(1, keepdim=True)], dim=1))
            sent = sent * self.attend(sent)
            moved, empty = between * self.move(sent), torch.zeros_like(x)
            count = empty.index_add(0, row, torch.ones_like(moved)).clamp(min=1)
            taken = torch.zeros(h.size(0), sent.size(1)).index_add(0, row, sent)
            return h + self.node(torch.cat([h, taken], dim=1)), x + empty.index_add(0, row, moved) / count

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, width), nn.Linear(width, 2)
        self.layers = nn.ModuleList(self.Layer(width) for _ in range(2))

    def forward(self, h: torch.Tensor, x: torch.Tensor, edges: torch.Tensor) -> Any:
        h = self.embed(h)
        for layer in self.layers:
            h, x = layer(h, x, edges)
        return self.head(h), x


class _SlidingWindow(nn.Module):
    """Grouped queries, neighbouring pairs turned, a window of keys, RMS norms and gates (Mistral by hand)."""

    class Block(nn.Module):
        """One decoder block."""

        def __init__(self, width: int, heads: int, shared: int, window: int) -> None:
            super().__init__()
            self.heads, self.shared, self.size, self.window = heads, shared, width // heads, window
            self.wq, self.wo = (nn.Linear(width, width, bias=False) for _ in range(2))
            self.wk, self.wv = (nn.Linear(width, shared * self.size, bias=False) for _ in range(2))
            self.norm1, self.norm2 = (nn.Parameter(torch.ones(width)) for _ in range(2))
            self.w1, self.w2, self.w3 = (
                nn.Linear(a, b, bias=False) for a, b in ((width, 10), (10, width), (width, 10))
            )

        @staticmethod
        def _normed(x: torch.Tensor, weight: torch.Tensor) -> Any:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

        @staticmethod
        def _turned(x: torch.Tensor) -> Any:
            length, size = x.shape[-2:]
            speeds = 10000.0 ** (-torch.arange(0, size, 2, dtype=x.dtype) / size)
            angles = torch.outer(torch.arange(length, dtype=x.dtype), speeds)
            a, b = x[..., ::2], x[..., 1::2]
            turned = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
            return torch.stack(turned, dim=-1).flatten(-2)

        def forward(self, x: torch.Tensor) -> Any:
            batch, length, _ = x.shape
            y = self._normed(x, self.norm1)
            q = self.wq(y).view(batch, length, self.heads, self.size).transpose(1, 2)
            k, v = (f(y).view(batch, length, self.shared, self.size).transpose(1, 2) for f in (self.wk, self.wv))
            k, v = (part.repeat_interleave(self.heads // self.shared, dim=1) for part in (self._turned(k), v))
            places = torch.arange(length)
            near = (places[None] <= places[:, None]) & (places[None] > places[:, None] - self.window)
            scores = (self._turned(q) @ k.transpose(-1, -2) / math.sqrt(self.size)).masked_fill(~near, float("-inf"))
            x = x + self.wo((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1))
            y = self._normed(x, self.norm2)
            return x + self.w2(F.silu(self.w1(y)) * self.w3(y))

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(11, width), nn.RMSNorm(width), nn.Linear(width, 11, bias=False)
        self.blocks = nn.ModuleList(self.Block(width, heads=4, shared=2, window=3) for _ in range(2))

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class _GatedResidual(nn.Module):
    """Two linear maps, a gate, the input, a norm; a context is added to what is hidden."""

    def __init__(self, inputs: int, hidden: int, outputs: int, context: int = 0) -> None:
        super().__init__()
        self.skip = nn.Linear(inputs, outputs) if inputs != outputs else None
        self.first, self.second, self.gate = (
            nn.Linear(inputs, hidden),
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, 2 * outputs),
        )
        self.context = nn.Linear(context, hidden, bias=False) if context else None
        self.norm, self.drop = nn.LayerNorm(outputs), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> Any:
        hidden = self.first(x)
        if self.context is not None and context is not None:
            hidden = hidden + self.context(context).unsqueeze(1)
        y = F.glu(self.gate(self.drop(self.second(F.elu(hidden)))), dim=-1)
        return self.norm((x if self.skip is None else self.skip(x)) + y)


class _TemporalFusion(nn.Module):
    """Variables are embedded and weighed one by one, and an LSTM starts from what does not change (TFT)."""

    def __init__(self, width: int = 6, variables: int = 5) -> None:
        super().__init__()
        self.static = nn.Linear(2, width)
        self.embeds = nn.ModuleList(nn.Linear(1, width) for _ in range(variables))
        self.select = _GatedResidual(variables * width, width, variables, width)
        self.each = nn.ModuleList(_GatedResidual(width, width, width) for _ in range(variables))
        self.lstm, self.gate, self.norm = (
            nn.LSTM(width, width, batch_first=True),
            nn.Linear(width, 2 * width),
            nn.LayerNorm(width),
        )
        self.enrich, self.head = _GatedResidual(width, width, width, width), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor, static: torch.Tensor) -> Any:
        context = self.static(static)
        parts = [embed(x[..., i : i + 1]) for i, embed in enumerate(self.embeds)]
        weights = self.select(torch.cat(parts, -1), context).softmax(dim=-1).unsqueeze(2)
        chosen = torch.stack([one(part) for one, part in zip(self.each, parts, strict=True)], dim=-1)
        y = (chosen * weights).sum(dim=-1)
        states, _ = self.lstm(y, (context.unsqueeze(0), context.unsqueeze(0)))
        return self.head(self.enrich(self.norm(F.glu(self.gate(states), -1) + y), context)), weights


class _Capsules(nn.Module):
    """Vectors agree on vectors by routing, which gradients pass in its last round alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.primary = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2 * 4, 3, 2)
        self.votes = nn.Parameter(0.3 * torch.randn(1, 18, 3, 5, 4))
        self.decode = nn.Sequential(nn.Linear(15, 9), nn.ReLU(), nn.Linear(9, 12), nn.Sigmoid())

    @staticmethod
    def _squashed(x: torch.Tensor) -> Any:
        size = (x**2).sum(-1, keepdim=True)
        return size / (1 + size) * x / (size.sqrt() + 1e-8)

    def forward(self, x: torch.Tensor) -> Any:
        u = self.primary(F.relu(self.conv(x)))
        batch = u.size(0)
        u = self._squashed(u.view(batch, 2, 4, -1).permute(0, 1, 3, 2).contiguous().view(batch, -1, 4))
        votes = torch.matmul(self.votes, u[:, :, None, :, None]).squeeze(-1)
        fixed, agreed = votes.detach(), torch.zeros(batch, 18, 3, 1)
        for _ in range(2):
            v = self._squashed((agreed.softmax(dim=2) * fixed).sum(dim=1))
            agreed = agreed + torch.matmul(fixed.unsqueeze(-2), v[:, None, :, :, None]).squeeze(-1)
        v = self._squashed((agreed.softmax(dim=2) * votes).sum(dim=1))
        return v.norm(dim=-1), self.decode(v.reshape(batch, -1))


class _ActorCritic(nn.Module):
    """A policy that is a squashed normal distribution, and the smaller of two values of what it does (SAC)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.mean, self.log_deviation = nn.Linear(8, 2), nn.Linear(8, 2)
        self.critic1, self.critic2 = (
            nn.Sequential(nn.Linear(7, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1)) for _ in range(2)
        )

    def forward(self, state: torch.Tensor, noise: torch.Tensor) -> Any:
        hidden = self.body(state)
        mean, deviation = self.mean(hidden), self.log_deviation(hidden).clamp(-20, 2).exp()
        raw = mean + deviation * noise
        policy: Any = torch.distributions.Normal(mean, deviation)
        likelihood = policy.log_prob(raw).sum(-1)
        likelihood = likelihood - (2 * (math.log(2) - raw - F.softplus(-2 * raw))).sum(1)
        done = torch.cat([state, torch.tanh(raw)], -1)
        return torch.tanh(raw), likelihood, torch.min(self.critic1(done), self.critic2(done)).squeeze(-1)


_Built = tuple[nn.Module, tuple[torch.Tensor, ...]]

KINDS: dict[str, Callable[[], _Built]] = {
    "shuffled-halves": lambda: (_ShuffledHalves(), (torch.randn(2, 3, 8, 8),)),
    "volumes": lambda: (_Volumes(), (torch.randn(2, 1, 8, 8, 8),)),
    "outer-product-memory": lambda: (_OuterProductMemory(), (torch.randint(9, (2, 5)),)),
    "state-space": lambda: (_StateSpace(), (torch.randn(2, 8, 3),)),
    "equivariant": lambda: (_Equivariant(), (torch.randn(6, 4), torch.randn(6, 3), torch.randint(6, (2, 11)))),
    "sliding-window": lambda: (_SlidingWindow(), (torch.randint(11, (2, 7)),)),
    "temporal-fusion": lambda: (_TemporalFusion(), (torch.randn(3, 4, 5), torch.randn(3, 2))),
    "capsules": lambda: (_Capsules(), (torch.randn(2, 1, 10, 10),)),
    "actor-critic": lambda: (_ActorCritic(), (torch.randn(3, 5), torch.randn(3, 2))),
}
"""By name, a model and its example inputs, drawn from torch's generator."""
