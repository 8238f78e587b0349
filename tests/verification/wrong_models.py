"""Small models that between them hold every operator that a wrong rewrite in the table damages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.models import MODELS


class Residual(nn.Module):
    """A residual block of convolutions with norms, an average pool with padding, and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.inner_norm = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.outer, self.slope = nn.Conv2d(6, 8, 1), nn.PReLU(8)
        self.pool, self.act, self.head = nn.AvgPool2d(3, 2, 1), nn.LeakyReLU(0.1), nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 8, 8) -> (n, 5)."""
        x = torch.relu(self.norm(self.stem(x)))
        x = self.slope(x + self.outer(torch.relu(self.inner_norm(self.inner(x)))))
        return self.head(self.act(self.pool(x)).flatten(1))


class Groups(nn.Module):
    """Grouped and depthwise convolutions, group and instance norm, and an upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)
        self.grouped, self.depthwise = nn.Conv2d(8, 12, 1, groups=2), nn.Conv2d(12, 12, 3, groups=12, padding=1)
        self.instance, self.up = nn.InstanceNorm2d(12, affine=True), nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(12, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 8, 8) -> (n, 3, 12, 12)."""
        x = F.relu6(self.norm(self.stem(x)))
        return self.head(self.up(self.instance(self.depthwise(self.grouped(x)))))


class Joined(nn.Module):
    """Two branches of equal width, concatenated, with a squeeze-and-excitation gate behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.mix, self.down, self.up = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 8, 8) -> (n, 5)."""
        x = self.mix(torch.cat([self.first(x), self.second(x)], 1))
        gate = self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))
        return self.head(torch.amax(x * torch.sigmoid(gate), (2, 3)))


class Stream(nn.Module):
    """Tokens with positions, attention by views into heads, a gated hidden layer, dropout, and a tied head."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.LayerNorm, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(7, 8), nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.norm2, self.norm3 = norm(8), norm(8), norm(8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.drop, self.down = nn.Linear(8, 12), nn.Dropout(dropout), nn.Linear(6, 8)
        self.square, self.head = nn.Linear(8, 8), nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, 8) -> (n, 2, l, 4)."""
        return x.view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Whole numbers (n, 5) -> (n, 5, 7)."""
        x = self.embed(tokens) + self.positions
        h = self.norm1(x)
        q, k, v = self.heads(self.q(h)), self.heads(self.k(h)), self.heads(self.v(h))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], 8))
        value, gate = self.up(self.norm2(x)).chunk(2, dim=-1)
        x = x + self.down(self.drop(value * F.gelu(gate)))
        return self.head(F.silu(self.square(self.norm3(x))) - x)


class AnySize(nn.Module):
    """Convolutions over sequences of any length: a pool over all of it, a flattened copy, its ends, and a resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.low = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 6, 1), nn.Conv1d(4, 6, 3, 2, 1)
        self.head, self.table = nn.Linear(12, 5), nn.Parameter(torch.randn(1, 4, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, length) -> (n, 5), of an even length of at most 16."""
        n, _, length = x.shape
        h = torch.relu(self.stem(x)) + self.table[:, :, :length]
        flat = h.transpose(1, 2).reshape(n * length, 4, 1)
        mixed = self.mix(flat).view(n, length, 6).transpose(1, 2)
        mixed = mixed + F.interpolate(self.low(h), scale_factor=2.0)
        pooled = F.adaptive_avg_pool1d(mixed, 1).flatten(1)
        return self.head(torch.cat([pooled, mixed[:, :, length - 1]], 1))


def any_size() -> gg.Graph:
    """The model for any length."""
    return _traced(AnySize(), torch.randn(2, 3, 8))


def residual() -> gg.Graph:
    """With statistics that are not trivial."""
    return _traced(Residual(), torch.randn(2, 3, 8, 8))


def groups() -> gg.Graph:
    """The model with grouped convolutions."""
    return _traced(Groups(), torch.randn(2, 3, 8, 8))


def joined() -> gg.Graph:
    """The model with a concatenation."""
    return _traced(Joined(), torch.randn(2, 3, 8, 8))


def stream() -> gg.Graph:
    """The token model with layer norms."""
    return _traced(Stream(), torch.tensor([[0, 1, 2, 3, 4], [5, 6, 0, 2, 1]]))


def rms_stream() -> gg.Graph:
    """The token model with RMS norms and no dropout."""
    return _traced(
        Stream(lambda width: nn.RMSNorm(width, eps=1e-3), 0.0), torch.tensor([[0, 1, 2, 3, 4], [5, 6, 0, 2, 1]])
    )


def vit() -> gg.Graph:
    """The reference ViT, small."""
    torch.manual_seed(0)
    return gg.trace(MODELS["vit"].factory(width=8, depth=1, heads=2), MODELS["vit"].example())


def _traced(model: nn.Module, example: torch.Tensor) -> gg.Graph:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                norm = "norm" in name or "instance" in name or "running" in name
                drawn = torch.rand if norm and not name.endswith(("bias", "mean")) else torch.randn
                tensor.copy_(drawn(tensor.shape, generator=generator) * 0.4 + (0.5 if drawn is torch.rand else 0.0))
    return gg.trace(model, example)
