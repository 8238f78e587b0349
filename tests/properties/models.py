"""Random small models: residual, grouped and dense convolutional nets, MLPs with norms, attention blocks."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

Model = tuple[nn.Module, torch.Tensor]
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.PReLU, nn.Hardswish)


class Residual(nn.Module):
    """x + branch(x), or the sum through a projection where widths differ."""

    def __init__(self, branch: nn.Module, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.projection = branch, projection or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes as those of the branch."""
        result: torch.Tensor = self.projection(x) + self.branch(x)
        return result


class Beside(nn.Module):
    """Two branches, concatenated along the channels (a dense block where one is the identity)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, ...) -> (n, c1 + c2, ...)."""
        return torch.cat([self.first(x), self.second(x)], 1)


class Gate(nn.Module):
    """Squeeze and excitation: each channel times a gate that all channels decide."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) -> the same."""
        gate = self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class Twice(nn.Module):
    """The same module called two times."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes are kept."""
        result: torch.Tensor = self.inner(torch.tanh(self.inner(x)))
        return result


class GatedHidden(nn.Module):
    """One projection, cut in two: a value and its gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the same."""
        value, gate = self.up(x).chunk(2, dim=-1)
        result: torch.Tensor = self.down(value * F.silu(gate))
        return result


class PackedAttention(nn.Module):
    """Self-attention from one packed projection, by views into heads."""

    def __init__(self, width: int, heads: int, head_width: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.out = nn.Linear(width, 3 * heads * head_width), nn.Linear(heads * head_width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, width) -> the same."""
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
            mixed = torch.softmax(scores, dim=-1) @ v
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, -1))
        return result


class LayerAttention(nn.Module):
    """nn.MultiheadAttention on one sequence."""

    def __init__(self, width: int, heads: int, weights: bool) -> None:
        super().__init__()
        self.weights, self.attention = weights, nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, width) -> the same."""
        result: torch.Tensor = self.attention(x, x, x, need_weights=self.weights)[0]
        return result


class Tokens(nn.Module):
    """Embedded tokens with positions, blocks, and the first token or the mean of all read out."""

    def __init__(self, embed: nn.Module, width: int, length: int, blocks: nn.Module, head: nn.Module, how: str) -> None:
        super().__init__()
        self.embed, self.blocks, self.head, self.how = embed, blocks, head, how
        self.positions = nn.Parameter(torch.randn(1, length, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, l, features) or whole numbers (n, l) -> (n, classes)."""
        x = self.blocks(self.embed(x) + self.positions)
        x = x[:, 0] if self.how == "first" else x.mean(1) if self.how == "mean" else x.flatten(1)
        result: torch.Tensor = self.head(x)
        return result


def _activation(draw: Any, channels: int) -> nn.Module:
    """An activation; `channels` is the size of axis 1, for one slope each."""
    kind = draw(st.sampled_from(ACTIVATIONS))
    return nn.PReLU(channels) if kind is nn.PReLU and draw(st.booleans()) else kind()


def _map_norm(draw: Any, channels: int) -> nn.Module:
    kind = draw(st.sampled_from(["batch", "batch", "group", "none", "instance"]))
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        return nn.GroupNorm(draw(st.sampled_from(divisors)), channels)
    return nn.InstanceNorm2d(channels, affine=True) if kind == "instance" else nn.Identity()


def _conv(draw: Any, inputs: int, outputs: int) -> nn.Sequential:
    """A 3x3 or 1x1 convolution of drawn groups, with norm and activation."""
    groups = draw(st.sampled_from([g for g in range(1, inputs + 1) if inputs % g == 0 and outputs % g == 0]))
    kernel = draw(st.sampled_from([1, 3]))
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=draw(st.booleans()))
    return nn.Sequential(layer, _map_norm(draw, outputs), _activation(draw, outputs))


def _conv_block(draw: Any, channels: int) -> tuple[nn.Module, int]:
    """A block over `channels`, and how many channels come out."""
    kind = draw(st.sampled_from(["conv", "residual", "separable", "beside", "dense", "gate", "twice", "pool"]))
    width = draw(st.integers(2, 6))
    if kind == "conv":
        return _conv(draw, channels, width), width
    if kind == "residual":
        branch = nn.Sequential(_conv(draw, channels, width), nn.Conv2d(width, channels, 1), _map_norm(draw, channels))
        return Residual(branch), channels
    if kind == "separable":
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        return nn.Sequential(depthwise, _map_norm(draw, channels), nn.Conv2d(channels, width, 1)), width
    if kind == "beside":
        return Beside(_conv(draw, channels, width), _conv(draw, channels, 2)), width + 2
    if kind == "dense":
        return Beside(nn.Identity(), _conv(draw, channels, width)), channels + width
    if kind == "gate":
        return Gate(channels, width), channels
    if kind == "twice":
        return Twice(nn.Conv2d(channels, channels, 3, padding=1)), channels
    return draw(st.sampled_from([nn.AvgPool2d(2, 1), nn.MaxPool2d(2, 1)])), channels


@st.composite
def conv_nets(draw: Any) -> Model:
    """A stem, up to three blocks, and a head on pooled or flattened maps."""
    channels = draw(st.integers(2, 5))
    height, width = draw(st.integers(5, 7)), draw(st.integers(5, 7))
    layers: list[nn.Module] = [nn.Conv2d(2, channels, 3, padding=1)]
    for _ in range(draw(st.integers(1, 3))):
        block, channels = _conv_block(draw, channels)
        layers.append(block)
    x = torch.randn(3, 2, height, width, dtype=torch.float64)
    if draw(st.booleans()):
        layers += [nn.AdaptiveAvgPool2d(draw(st.integers(1, 2))), nn.Flatten()]
    else:
        layers += [nn.MaxPool2d(2), nn.Flatten()]
    features = nn.Sequential(*layers).double()(x).shape[1]
    return _stirred(nn.Sequential(*layers, nn.Linear(features, 2))), x


def _vector_norm(draw: Any, width: int, batch: bool) -> nn.Module:
    kinds = ["layer", "rms", "none", *(["batch"] if batch else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "layer":
        return nn.LayerNorm(width)
    if kind == "rms":
        return nn.RMSNorm(width, eps=1e-3)
    return nn.BatchNorm1d(width) if kind == "batch" else nn.Identity()


def _mlp_block(draw: Any, width: int, batch: bool) -> nn.Module:
    hidden = draw(st.integers(2, 6))
    if draw(st.booleans()):
        return Residual(nn.Sequential(_vector_norm(draw, width, batch), GatedHidden(width, hidden)))
    dropout = nn.Dropout(draw(st.sampled_from([0.0, 0.3])))
    activation = _activation(draw, hidden if batch else 1)
    branch = [_vector_norm(draw, width, batch), nn.Linear(width, hidden), activation, dropout]
    if draw(st.booleans()):
        branch.append(_vector_norm(draw, hidden, batch))
    branch.append(nn.Linear(hidden, width))
    return Residual(nn.Sequential(*branch)) if draw(st.booleans()) else nn.Sequential(*branch)


@st.composite
def mlps(draw: Any) -> Model:
    """Linear layers with norms, gates and residual connections; two of them may share their weight."""
    width = draw(st.integers(2, 6))
    blocks = [_mlp_block(draw, width, True) for _ in range(draw(st.integers(1, 3)))]
    layers = [nn.Linear(3, width), *blocks, _vector_norm(draw, width, True)]
    if draw(st.booleans()):
        first, second = nn.Linear(width, width), nn.Linear(width, width)
        second.weight = first.weight
        layers += [first, nn.Tanh(), second]
    return _stirred(nn.Sequential(*layers, nn.Linear(width, 2))), torch.randn(6, 3, dtype=torch.float64)


@st.composite
def transformers(draw: Any) -> Model:
    """Pre-norm blocks of attention and MLP on a stream of tokens."""
    heads, head_width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    width, length = heads * head_width, draw(st.integers(2, 4))
    blocks: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.booleans()):
            attention: nn.Module = LayerAttention(width, heads, draw(st.booleans()))
        else:
            attention = PackedAttention(width, draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.booleans()))
        blocks.append(Residual(nn.Sequential(_vector_norm(draw, width, False), attention)))
        blocks.append(_mlp_block(draw, width, False))
    how = draw(st.sampled_from(["first", "mean", "flat"]))
    head = nn.Linear(width * (length if how == "flat" else 1), 2)
    if draw(st.booleans()):
        embed: nn.Module = nn.Embedding(5, width)
        x = torch.randint(0, 5, (2, length))
    else:
        embed, x = nn.Linear(3, width), torch.randn(2, length, 3, dtype=torch.float64)
    stack = nn.Sequential(*blocks, _vector_norm(draw, width, False))
    return _stirred(Tokens(embed, width, length, stack, head, how)), x


def _stirred(model: nn.Module) -> nn.Module:
    """Norms with parameters and statistics that are not trivial, in float64."""
    for module in model.modules():
        if "Norm" in type(module).__name__:
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.5, 1.5) if name != "bias" else nn.init.normal_(tensor)
    return model.double().eval()


def models() -> st.SearchStrategy[Model]:
    """Any of them, in eval mode and float64, with an example input."""
    return st.one_of(conv_nets(), mlps(), transformers())
