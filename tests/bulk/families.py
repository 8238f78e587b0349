"""Models in small and large: how others write residual networks, vision transformers and language models."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.store.names import import_torchvision

torchvision = import_torchvision()
BasicBlock = torchvision.models.resnet.BasicBlock


class PlainResNet(nn.Module):
    """torchvision's basic blocks in two stages, of any width and depth (torchvision's ResNet has its widths fixed)."""

    def __init__(self, widths: tuple[int, int], depths: tuple[int, int] = (2, 2)) -> None:
        super().__init__()
        first, second = widths
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = nn.Sequential(*(BasicBlock(first, first) for _ in range(depths[0])))
        down = nn.Sequential(nn.Conv2d(first, second, 1, stride=2, bias=False), nn.BatchNorm2d(second))
        rest = (BasicBlock(second, second) for _ in range(depths[1] - 1))
        self.layer2 = nn.Sequential(BasicBlock(first, second, 2, down), *rest)
        self.fc = nn.Linear(second, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(images)))))
        result: torch.Tensor = self.fc(maps.mean((2, 3)))
        return result


def vision_transformer(heads: int, depth: int) -> nn.Module:
    """torchvision's, with heads of 8 units on images of 16 x 16; its head starts at zero."""
    sizes = {"num_heads": heads, "hidden_dim": 8 * heads, "mlp_dim": 16 * heads, "num_layers": depth}
    model: nn.Module = torchvision.models.VisionTransformer(image_size=16, patch_size=8, num_classes=5, **sizes)
    return model


def convnext(first: int, second: int, depth: int) -> nn.Module:
    """torchvision's: layer norms behind depthwise convolutions, of which whole copies alone are exact."""
    config = torchvision.models.convnext.CNBlockConfig
    stages = [config(first, second, depth), config(second, None, depth)]
    model: nn.Module = torchvision.models.ConvNeXt(stages, num_classes=5)
    return model


def swin(depths: tuple[int, int], width: int = 8) -> nn.Module:
    """torchvision's: attention over shifted windows, which is handed the parameters of its layers."""
    heads = [width // 4, width // 2]
    model: nn.Module = torchvision.models.SwinTransformer([4, 4], width, list(depths), heads, [2, 2], num_classes=5)
    return model


class Conv1D(nn.Module):
    """A linear map with its weight turned around, as GPT-2's in transformers: no layer of torch.nn."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(width, outputs) * 0.2), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class GPT2Block(nn.Module):
    """A pre-norm MLP of such maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), Conv1D(width, 2 * width), Conv1D(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return result


class GPT2(nn.Module):
    """Tokens to logits through GPT-2's maps, of any width and depth."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(19, width), nn.Linear(width, 19, bias=False)
        self.blocks, self.norm = nn.Sequential(*(GPT2Block(width) for _ in range(depth))), nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.norm(self.blocks(self.embed(tokens))))
        return result


class PostNorm(nn.Module):
    """A masked language model as BERT is one: norms behind the sums, the head tied to the table of tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Embedding(19, width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down, self.head = nn.Linear(width, 20), nn.Linear(20, width), nn.Linear(width, 19)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.embed(tokens))
        result: torch.Tensor = self.head(self.norm2(x + self.down(F.gelu(self.up(x)))))
        return result


class SpelledRMSNorm(nn.Module):
    """As transformers' Llama writes it, float32 inside whatever comes in, and with another name for eps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.variance_epsilon = 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(x.dtype)


class FunctionalRMSNorm(nn.Module):
    """Root mean square norm by function, its eps an attribute of this module."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class LlamaBlock(nn.Module):
    """Attention with rotary positions and a gated MLP, each behind an RMS norm."""

    def __init__(self, dim: int, heads: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, 8 * heads, bias=False) for _ in range(3))
        self.o_proj = nn.Linear(8 * heads, dim, bias=False)
        self.gate_proj, self.up_proj = (nn.Linear(dim, 3 * dim, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(3 * dim, dim, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (
            p(y).view(x.shape[0], x.shape[1], self.heads, 8).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (z * cos + torch.cat([-z[..., 4:], z[..., :4]], -1) * sin for z in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.heads * 8))
        y = self.norm2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    """A language model of Llama blocks; the rotary table is a buffer that no state_dict holds."""

    def __init__(self, heads: int, depth: int, tied: bool, norm: Callable[[int], nn.Module] = nn.RMSNorm) -> None:
        super().__init__()
        dim = 8 * heads
        self.embed = nn.Embedding(19, dim)
        self.layers = nn.ModuleList([LlamaBlock(dim, heads, norm) for _ in range(depth)])
        self.norm = norm(dim)
        self.head = nn.Linear(dim, 19, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        angles = torch.outer(torch.arange(16.0), 100.0 ** (-torch.arange(4.0) / 4)).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        cos, sin = (self.get_buffer(name)[: tokens.shape[1]] for name in ("cos", "sin"))
        for layer in self.layers:
            x = layer(x, cos, sin)
        result: torch.Tensor = self.head(self.norm(x))
        return result


class Perceptron(nn.Module):
    """Linear maps in a list, and ReLU as a function; what stands between them may be counted."""

    def __init__(self, *widths: int, counted: bool = False) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((3, *widths)))
        self.head, self.counted = nn.Linear(widths[-1], 4), counted

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.zeros_like(x[..., :1])
        for layer in self.maps:
            x = F.relu(layer(x))
            seen = seen + x.mean(-1, keepdim=True) if self.counted else seen
        result: torch.Tensor = self.head(x) + seen
        return result
