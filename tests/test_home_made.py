"""Models as people write them: every mutation that is listed is preserved, and what should grow does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg


class TimmAttention(nn.Module):
    """Packed qkv, split by a view and unbind; attention spelled out with a scale from the width."""

    def __init__(self, dim: int = 12, heads: int = 3, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.scale, self.fused = heads, (dim // heads) ** -0.5, fused
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        result: torch.Tensor = self.proj(x.transpose(1, 2).reshape(b, n, c))
        return result


class ViewAttention(nn.Module):
    """Separate projections; the scale is computed from the shape at run time."""

    def __init__(self, dim: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=i != 1) for i in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.size()
        q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = torch.matmul(q, k.transpose(-2, -1)) / (q.size(-1) ** 0.5)
        mixed = torch.matmul(F.softmax(scores, dim=-1), v)
        result: torch.Tensor = self.out(mixed.transpose(1, 2).contiguous().view(b, n, -1))
        return result


class Block(nn.Module):
    def __init__(self, attention: nn.Module, dim: int = 12) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(dim), nn.LayerNorm(dim), attention
        self.mlp = nn.Sequential(nn.Linear(dim, 20), nn.GELU(), nn.Linear(20, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        result: torch.Tensor = x + self.mlp(self.norm2(x))
        return result


def sequence(body: nn.Module, dim: int = 12) -> nn.Module:
    return nn.Sequential(nn.Linear(5, dim), body, nn.LayerNorm(dim), nn.Linear(dim, 4))


class OwnRMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class GatedMLP(nn.Module):
    """Gate and up as in Llama, or both in one projection that is chunked."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.norm = nn.RMSNorm(12, eps=1e-6)
        self.up, self.gate = nn.Linear(12, 40 if packed else 20, bias=False), nn.Linear(12, 20, bias=False)
        self.down = nn.Linear(20, 12, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(x)
        if self.packed:
            up, gate = self.up(hidden).chunk(2, dim=-1)
        else:
            up, gate = self.up(hidden), self.gate(hidden)
        result: torch.Tensor = x + self.down(F.silu(gate) * up)
        return result


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        x = F.adaptive_avg_pool2d(x * gate[:, :, None, None], 2)
        result: torch.Tensor = self.head(x.view(x.size(0), -1))
        return result


class Shuffled(nn.Module):
    """Grouped convolution and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped, self.last = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=3), nn.Conv2d(12, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.grouped(self.first(x)))
        b, c, h, w = x.shape
        x = x.view(b, 3, c // 3, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
        result: torch.Tensor = self.last(x).mean((2, 3))
        return result


class TinyUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.merge, self.norm, self.head = nn.Conv2d(12, 6, 3, padding=1), nn.GroupNorm(3, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = torch.relu(self.down1(x))
        x = self.up(torch.relu(self.down2(skip)))
        result: torch.Tensor = self.head(torch.relu(self.norm(self.merge(torch.cat([x, skip], dim=1)))))
        return result


class CalledTwice(nn.Module):
    """One module at two places, and a tied embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.inner, self.shared, self.back = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(self.inner(x)))))
        result: torch.Tensor = self.head(x + self.back(hidden))
        return result


class Sequence1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.norm, self.head = nn.InstanceNorm1d(8, affine=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 0 * x.mean() if x.dim() == 2 else x
        x = self.norm(F.elu(self.b(F.leaky_relu(self.a(x)))))
        result: torch.Tensor = self.head(x.amax(dim=-1))
        return result


class Einsums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).reshape(b, n, 3, 4) for f in (self.q, self.k, self.v))
        weights = torch.softmax(torch.einsum("b i h d, b j h d -> b h i j", q, k) / math.sqrt(4), -1)
        result: torch.Tensor = self.out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
        return result


class Parallel(nn.Module):
    """Two inputs, several outputs in a dict, branches that are added, multiplied and concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(3, 8), nn.Linear(8, 8)
        self.joint, self.aux = nn.Linear(16, 4), nn.Linear(8, 2)
        self.gain, self.slope = nn.Parameter(torch.rand(8)), nn.PReLU(8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        left, right = self.slope(self.a(x)), self.b(y)
        mixed = left * torch.sigmoid(right) + self.gain
        joint = self.joint(torch.cat([mixed, self.c(left)], dim=-1))
        return {"joint": joint, "both": (self.aux(mixed), joint.sum())}


class Functional(nn.Module):
    """F.* with parameters of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(9, 5)), nn.Parameter(torch.randn(9))
        self.scale, self.shift = nn.Parameter(torch.rand(9) + 0.5), nn.Parameter(torch.randn(9))
        self.w2 = nn.ParameterList([nn.Parameter(torch.randn(9, 4))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(F.linear(x, self.w1, self.b1), (9,), self.scale, self.shift)
        return F.gelu(x) @ self.w2[0]


class ImageNorm(nn.LayerNorm):
    """A LayerNorm over the channels of an image, as torchvision's LayerNorm2d."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(12, 2, 16, dropout=0.0, batch_first=True)
        self.decoder, self.head = nn.TransformerDecoder(layer, 1), nn.Linear(12, 3)

    def forward(self, target: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.decoder(target, memory))
        return result


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 7, batch_first=True)
        self.head = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.gru(x)[0][:, -1])
        return result


def images() -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 3, 8, 8),)


def tokens() -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 6, 5),)


Example = Callable[[], tuple[torch.Tensor, ...]]
# name -> model, example inputs, groups that must be open to a pass
ZOO: dict[str, tuple[Callable[[], nn.Module], Example, list[str]]] = {
    "timm attention": (
        lambda: sequence(Block(TimmAttention())),
        tokens,
        ["widen(0, ", "split(0)", "widen(1.attention.qkv:1, ", "widen(1.mlp.0, "],
    ),
    "timm attention, fused": (lambda: sequence(Block(TimmAttention(fused=True))), tokens, ["widen(0, "]),
    "attention by views": (
        lambda: sequence(Block(ViewAttention())),
        tokens,
        ["widen(0, ", "split(0)", "widen(1.attention.q:0, ", "widen(1.attention.q:1, ", "split(1.attention.v"],
    ),
    "own RMS norm": (lambda: nn.Sequential(nn.Linear(5, 12), OwnRMSNorm(12), nn.Linear(12, 4)), tokens, []),
    "gated MLP": (
        lambda: nn.Sequential(nn.Linear(5, 12), GatedMLP(False), nn.Linear(12, 4)),
        tokens,
        ["widen(0, ", "split(0)", "widen(1.up, ", "split(1.up)"],
    ),
    "gated MLP, packed": (
        lambda: nn.Sequential(nn.Linear(5, 12), GatedMLP(True), nn.Linear(12, 4)),
        tokens,
        ["widen(1.up:0, ", "split(1.up:0)"],
    ),
    "squeeze and excitation": (SqueezeExcite, images, ["widen(conv, ", "split(conv)", "widen(squeeze, "]),
    "channel shuffle": (Shuffled, images, ["widen(first:groups, ", "widen(first:group_width, "]),
    "U-Net": (TinyUNet, images, ["widen(down1, ", "split(down1)", "widen(up, ", "widen(merge:groups, "]),
    "called twice, tied": (CalledTwice, lambda: (torch.randint(11, (2, 7)),), ["widen(inner, ", "split(inner)"]),
    "1d": (Sequence1d, lambda: (torch.randn(2, 3, 9),), ["widen(a, ", "split(a)"]),
    "einsum": (Einsums, lambda: (torch.randn(2, 5, 12),), ["widen(v:", "widen(q:0, "]),
    "several inputs and outputs": (
        Parallel,
        lambda: (torch.randn(3, 5), torch.randn(3, 3)),
        ["widen(a, ", "split(a)"],
    ),
    "functional": (Functional, lambda: (torch.randn(3, 5),), ["split(w1)", "widen(w1, "]),
    "LayerNorm2d": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), ImageNorm(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        images,
        ["widen(0, ", "split(0)"],
    ),
    "nn.TransformerEncoder": (
        lambda: nn.Sequential(
            nn.Linear(5, 12),
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(12, 2, 16, dropout=0.1, batch_first=True, norm_first=True), 2
            ),
            nn.LayerNorm(12),
            nn.Linear(12, 3),
        ),
        tokens,
        ["widen(1.layers.0.linear1, ", "widen(1.layers.0.self_attn:heads, "],
    ),
    "nn.TransformerDecoder": (
        _Decoder,
        lambda: (torch.randn(2, 4, 12), torch.randn(2, 6, 12)),
        ["widen(decoder.layers.0.linear1, ", "widen(decoder.layers.0.multihead_attn:heads, "],
    ),
    "3d": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.SiLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(4 * 8, 3)
        ),
        lambda: (torch.randn(2, 1, 6, 6, 6),),
        ["widen(0, ", "split(0)"],
    ),
    "recurrent": (_Recurrent, tokens, ["widen(gru:hidden, ", "split(gru:hidden)", "widen(head.0, "]),
}


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_listed_mutation_is_preserved(name: str) -> None:
    build, example, expected = ZOO[name]
    graph = gg.trace(build(), example())
    mutations = list(graph.mutations())
    texts = [str(mutation) for mutation in mutations]
    for start in expected:
        assert any(text.startswith(start) for text in texts), f"{start} not among {texts}\n{graph.explain()}"
    for mutation in mutations:
        grown = gg.apply(graph, mutation, seed=3)
        verdict = gg.verify(graph, grown, batch_sizes=(1,))
        assert verdict.preserved, f"{mutation}\n{verdict}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = gg.trace(model.to(dtype), torch.randn(4, 5).to(dtype))
    mutations = list(graph.mutations())
    assert {type(mutation).name for mutation in mutations} >= {"widen", "split", "deepen", "add-branch"}
    for mutation in mutations:
        grown = gg.apply(graph, mutation)
        assert {parameter.dtype for parameter in grown.module.parameters()} == {dtype}
        assert gg.verify(graph, grown).preserved, mutation


def test_channels_last() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(1))
    model: nn.Module = nn.Sequential(inner, nn.Linear(64, 2))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types this form for tensors alone
    graph = gg.trace(model, torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last))
    for mutation in graph.mutations():
        grown = gg.apply(graph, mutation)
        assert gg.verify(graph, grown).preserved, mutation
        convolutions = [p for p in grown.module.parameters() if p.dim() == 4]
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions), mutation
