"""Residual blocks x + f(x) whose last projection starts at zero, so that they start as identity."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from graphgrow.blocks.block import Block, conv
from graphgrow.layers import ScaledDotProductAttention


class ConvBlock(Block):
    """x + conv2(act(norm(conv1(x)))) on maps (N, C, positions...), conv2 zero at the start.

    In front of a norm that takes the mean of each channel away, conv1 has no bias, which would never learn.

    He et al., "Deep residual learning for image recognition", 2016 (arXiv:1512.03385).

    Args:
        channels: C.
        hidden: channels between the two convolutions.
        kernel: odd, of both convolutions.
        dims: number of spatial axes.
        norm: of `hidden` channels, or Identity.
        activation: between the two.
    """

    closed: ClassVar[tuple[str, ...]] = ("conv2",)
    activated: ClassVar[tuple[tuple[str, ...], ...]] = (("conv1", "norm", "activation"),)

    def __init__(
        self, channels: int, hidden: int, kernel: int, dims: int, norm: nn.Module, activation: nn.Module
    ) -> None:
        super().__init__()
        self.conv1 = conv(dims, channels, hidden, kernel, padding=kernel // 2, bias=not _centres_channels(norm))
        self.norm = norm
        self.activation = activation
        self.conv2 = conv(dims, hidden, channels, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, positions...) -> the same shape."""
        branch: torch.Tensor = self.conv2(self.activation(self.norm(self.conv1(x))))
        return x + branch


class MlpBlock(Block):
    """x + linear2(act(linear1(norm(x)))) on features (..., C), linear2 zero at the start.

    Args:
        width: C.
        hidden: width between the two linear maps.
        norm: of `width` features, or Identity.
        activation: between the two.
    """

    closed: ClassVar[tuple[str, ...]] = ("linear2",)
    activated: ClassVar[tuple[tuple[str, ...], ...]] = (("linear1", "activation"),)

    def __init__(self, width: int, hidden: int, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.linear1 = nn.Linear(width, hidden)
        self.activation = activation
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) -> the same shape."""
        branch: torch.Tensor = self.linear2(self.activation(self.linear1(self.norm(x))))
        return x + branch


class AttentionBlock(Block):
    """x + output(attention(norm(x))) on tokens (N, L, C), the output projection zero at the start.

    Vaswani et al., "Attention is all you need", 2017 (arXiv:1706.03762), pre-norm. Keys have no bias: it would move
    all scores of a query alike, which softmax does not see, and so would never learn.

    Args:
        width: C, a multiple of `heads`.
        heads: number of attention heads.
        norm: of `width` features, or Identity.
        causal: whether a token sees only those before it.
    """

    closed: ClassVar[tuple[str, ...]] = ("output",)

    def __init__(self, width: int, heads: int, norm: nn.Module, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = norm
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.attention = ScaledDotProductAttention(is_causal=causal)
        self.output = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, C) -> the same shape."""
        normed = self.norm(x)
        query, key, value = (
            project(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attended = self.attention(query, key, value).transpose(1, 2).flatten(-2)
        branch: torch.Tensor = self.output(attended)
        return x + branch


class IdentityLayer(Block):
    """A square linear map that starts as identity, and a PReLU of slope 1.

    Chen, Goodfellow and Shlens, "Net2Net", 2016 (arXiv:1511.05641), with an activation that starts linear, so that the
    layer may follow any other.

    Args:
        channels: C.
        kernel: odd, of the convolution on maps.
        dims: number of spatial axes; 0 for features (..., C).
    """

    def __init__(self, channels: int, kernel: int, dims: int) -> None:
        super().__init__()
        square = nn.Linear(channels, channels)
        self.linear = conv(dims, channels, channels, kernel, padding=kernel // 2) if dims else square
        self.activation = nn.PReLU()

    def start(self, generator: torch.Generator) -> None:
        """The identity map, slope 1."""
        _become_identity(self.linear)
        nn.init.ones_(self.activation.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the input's shape."""
        result: torch.Tensor = self.activation(self.linear(x))
        return result


class RepeatedLayer(Block):
    """A square map that starts as identity, and an activation that stands in front of it already.

    Chen, Goodfellow and Shlens, "Net2Net", 2016 (arXiv:1511.05641): behind an f with f(f(x)) = f(x), as ReLU is, the
    layer changes nothing, and afterwards it is a layer like the one in front.

    Args:
        channels: C.
        kernel: of the convolution on maps, an odd size for each of their axes; empty for features (..., C).
        bias: whether the map has one.
        activation: f.
    """

    def __init__(self, channels: int, kernel: tuple[int, ...], bias: bool, activation: nn.Module) -> None:
        super().__init__()
        if any(size % 2 == 0 for size in kernel):
            raise ValueError(f"a kernel of {kernel} has no middle; odd sizes are wanted")
        padding = tuple(size // 2 for size in kernel)
        convolution = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(kernel)]
        options: dict[str, Any] = {"kernel_size": kernel, "padding": padding} if kernel else {}
        self.linear = convolution(channels, channels, bias=bias, **options)
        self.activation = activation

    def start(self, generator: torch.Generator) -> None:
        """The identity map."""
        _become_identity(self.linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the input's shape."""
        result: torch.Tensor = self.activation(self.linear(x))
        return result


def _centres_channels(norm: nn.Module) -> bool:
    """Whether a norm takes the mean of each single channel away."""
    single = isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels
    return single or isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))


def _become_identity(square: nn.Module) -> None:
    """Let a square linear map, or a convolution of odd sizes, return its input."""
    weight, bias = square.get_parameter("weight"), getattr(square, "bias", None)
    if isinstance(square, nn.Linear):
        nn.init.eye_(weight)
    else:
        nn.init.dirac_(weight)
    if bias is not None:
        nn.init.zeros_(bias)
