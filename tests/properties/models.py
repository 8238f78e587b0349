"""Random small models: convolutional nets in one to three dimensions, MLPs, transformers, several inputs and outputs.

Each prints as the code that makes it; the names in it come from here and from `tests.properties.blocks`.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from torch import nn

from tests.properties.blocks import (
    ORDERS,
    Beside,
    CrossAttention,
    Decoder,
    DownAndUp,
    Gate,
    GatedHidden,
    LastAxis,
    LayerAttention,
    PackedAttention,
    Patches,
    Residual,
    Scaled,
    Shuffle,
    Steady,
    TiedPair,
    Tokens,
    Twice,
    TwoInTwoOut,
)
from tests.properties.written import VOCABULARY, Model, noise, stirred, tokens

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.PReLU, nn.Hardswish, nn.ELU)
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOLS = {
    1: (nn.AvgPool1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    2: (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
    3: (nn.AvgPool3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d),
}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def _activation(draw: Any, channels: int) -> nn.Module:
    """An activation; `channels` is the size of axis 1, for one slope each."""
    kind = draw(st.sampled_from([*ACTIVATIONS, Steady]))
    if kind is Steady:
        return Steady(draw(st.sampled_from(["quotient", "root", "log", "exp"])))
    return nn.PReLU(channels) if kind is nn.PReLU and draw(st.booleans()) else kind()


def _map_norm(draw: Any, channels: int, dims: int) -> nn.Module:
    kind = draw(st.sampled_from(["batch", "batch", "group", "none", "instance"]))
    if kind == "batch":
        return BATCH_NORMS[dims](channels)
    if kind == "group":
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        return nn.GroupNorm(draw(st.sampled_from(divisors)), channels)
    return INSTANCE_NORMS[dims](channels, affine=True) if kind == "instance" else nn.Identity()


def _conv(draw: Any, inputs: int, outputs: int, dims: int) -> nn.Sequential:
    """A convolution of kernel 3 or 1 and drawn groups, with norm and activation."""
    groups = draw(st.sampled_from([g for g in range(1, inputs + 1) if inputs % g == 0 and outputs % g == 0]))
    kernel, bias = draw(st.sampled_from([1, 3])), draw(st.booleans())
    layer = CONVOLUTIONS[dims](inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)
    return nn.Sequential(layer, _map_norm(draw, outputs, dims), _activation(draw, outputs))


def _conv_block(draw: Any, channels: int, dims: int) -> tuple[nn.Module, int]:
    """A block over `channels`, and how many channels come out."""
    kinds = ["conv", "residual", "separable", "beside", "dense", "gate", "twice", "pool", "last axis", "down and up"]
    kind = draw(st.sampled_from([*kinds, "shuffle"] if dims == 2 and channels % 2 == 0 else kinds))
    width, conv = draw(st.integers(2, 6)), CONVOLUTIONS[dims]
    if kind == "conv":
        return _conv(draw, channels, width, dims), width
    if kind == "residual":
        end = [conv(width, channels, 1), _map_norm(draw, channels, dims)]
        return Residual(nn.Sequential(_conv(draw, channels, width, dims), *end)), channels
    if kind == "separable":
        depthwise = conv(channels, channels, 3, padding=1, groups=channels)
        return nn.Sequential(depthwise, _map_norm(draw, channels, dims), conv(channels, width, 1)), width
    if kind == "beside":
        return Beside(_conv(draw, channels, width, dims), _conv(draw, channels, 2, dims)), width + 2
    if kind == "dense":
        return Beside(nn.Identity(), _conv(draw, channels, width, dims)), channels + width
    if kind == "gate":
        axes = tuple(range(2, 2 + dims))
        return Gate(conv(channels, width, 1), conv(width, channels, 1), axes), channels
    if kind == "twice":
        return Twice(conv(channels, channels, 3, padding=1)), channels
    if kind == "shuffle":
        return Shuffle(_conv(draw, channels // 2, channels // 2, dims)), channels
    if kind == "last axis":
        inner = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width), nn.GELU(), nn.Linear(width, channels))
        return LastAxis(conv(channels, channels, 3, padding=1, groups=channels), inner, channels), channels
    if kind == "down and up":
        up = TRANSPOSED[dims](width, 2, 3, padding=1)
        return DownAndUp(conv(channels, width, 3, padding=1), up), channels + 2
    return draw(st.sampled_from(POOLS[dims][:2]))(2, 1), channels


@st.composite
def conv_nets(draw: Any) -> Model:
    """A stem, up to three blocks, and a head on pooled or flattened maps, in one to three dimensions."""
    dims = draw(st.sampled_from([2, 2, 2, 1, 3]))
    channels = draw(st.integers(2, 5))
    sizes = tuple(draw(st.integers(5, 7)) for _ in range(dims))
    layers: list[nn.Module] = [CONVOLUTIONS[dims](2, channels, 3, padding=1)]
    for _ in range(draw(st.integers(1, 3))):
        block, channels = _conv_block(draw, channels, dims)
        layers.append(block)
    x = noise((3, 2, *sizes))
    if draw(st.booleans()):
        layers += [POOLS[dims][2](draw(st.integers(1, 2))), nn.Flatten()]
    else:
        layers += [POOLS[dims][1](2), nn.Flatten()]
    features = nn.Sequential(*layers).double()(x).shape[1]
    return _model(draw, nn.Sequential(*layers, nn.Linear(features, 2)), x)


def _vector_norm(draw: Any, width: int, batch: bool) -> nn.Module:
    kinds = ["layer", "rms", "none", *(["batch"] if batch else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "layer":
        return nn.LayerNorm(width)
    if kind == "rms":
        return nn.RMSNorm(width, eps=draw(st.sampled_from([1e-3, None])))
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
        layers.append(TiedPair(width))
    return _model(draw, nn.Sequential(*layers, nn.Linear(width, 2)), noise((6, 3)))


@st.composite
def forks(draw: Any) -> Model:
    """Two inputs, joined, and two outputs."""
    width = draw(st.integers(2, 6))
    trunk = nn.Sequential(*(_mlp_block(draw, width, True) for _ in range(draw(st.integers(1, 2)))))
    heads: list[nn.Module] = [nn.Linear(width, 2), nn.Linear(width, 1)]
    first, second = nn.Linear(3, width), nn.Sequential(nn.Linear(4, width), _activation(draw, width))
    how = draw(st.sampled_from(["product", "maximum"]))
    return _model(draw, TwoInTwoOut(first, second, trunk, heads, how), (noise((6, 3), 0), noise((6, 4), 1)))


@st.composite
def transformers(draw: Any) -> Model:
    """Pre-norm blocks of attention and MLP on a stream of tokens, of embedded words, vectors or patches."""
    heads, head_width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    width, length = heads * head_width, draw(st.integers(2, 4))
    blocks: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.booleans()):
            attention: nn.Module = LayerAttention(width, heads, draw(st.booleans()))
        else:
            sizes, order = (draw(st.integers(1, 3)), draw(st.integers(1, 4))), draw(st.sampled_from(sorted(ORDERS)))
            attention = PackedAttention(width, *sizes, draw(st.booleans()), order, draw(st.booleans()))
        scale = [Scaled(width)] if draw(st.booleans()) else []
        blocks.append(Residual(nn.Sequential(_vector_norm(draw, width, False), attention, *scale)))
        blocks.append(_mlp_block(draw, width, False))
    how = draw(st.sampled_from(["first", "mean", "flat"]))
    head = nn.Linear(width * (length if how == "flat" else 1), 2)
    source = draw(st.sampled_from(["words", "vectors", "patches"]))
    embed: nn.Module = nn.Embedding(VOCABULARY, width)
    x = tokens((2, length))
    if source == "vectors":
        embed, x = nn.Linear(3, width), noise((2, length, 3))
    elif source == "patches":
        embed, x = nn.Sequential(nn.Conv2d(2, width, 2, stride=2), Patches()), noise((2, 2, 2, 2 * length))
    stack = nn.Sequential(*blocks, _vector_norm(draw, width, False))
    return _model(draw, Tokens(embed, width, length, stack, head, how), x)


@st.composite
def decoders(draw: Any) -> Model:
    """Two sequences of tokens, one read through the other by masked attention, with a tied head."""
    width = draw(st.integers(2, 6))
    cross = CrossAttention(width, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    norm, block = _vector_norm(draw, width, False), _mlp_block(draw, width, False)
    lengths = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    inputs = tokens((2, lengths[0]), 0), tokens((2, lengths[1]), 1)
    return _model(draw, Decoder(width, cross, norm, block), inputs)


def _model(draw: Any, module: nn.Module, inputs: Any) -> Model:
    return Model(stirred(module, draw(st.integers(0, 99))), inputs)


FAMILIES = {"conv": conv_nets(), "mlp": mlps(), "transformer": transformers(), "fork": forks(), "decoder": decoders()}


def models() -> st.SearchStrategy[Model]:
    """Any of them, in eval mode and float64, with example inputs."""
    return st.one_of(*FAMILIES.values())
