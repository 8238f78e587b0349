"""Operators that may stand in the place of another, by name: what a choice is made between."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from graphgrow.blocks.activations import ACTIVATIONS
from graphgrow.blocks.block import conv
from graphgrow.layers import Zeros

CONVS: dict[type, int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
BESIDE_CONVS = (
    "conv-1",
    "conv-3",
    "conv-5",
    "separable-3",
    "dilated-3",
    "max-pool",
    "average-pool",
    "identity",
    "none",
)
BESIDE_LINEAR = ("low-rank", "identity", "none")
BESIDE_ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "identity")
_POOLS: dict[str, dict[int, type[nn.Module]]] = {
    "max-pool": {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d},
    "average-pool": {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d},
}
_SIZED = re.compile(r"(conv|separable|dilated)-([1-9]\d?)")
_WINDOW = 3
_RANK = 4  # a low-rank map has a quarter of the smaller width


class DoesNotFit(ValueError):
    """An operator of that name cannot stand there; says why."""


def operator_like(present: nn.Module, name: str, same_shape: bool) -> Callable[[], nn.Module]:
    """What builds the operator of a name that maps the same inputs to outputs of the same shape.

    Args:
        present: a convolution or a linear map of torch.nn, or an activation.
        name: one of the lists above; the numbers are kernel sizes.
        same_shape: whether the present operator's output has its input's shape, for inputs of every size.

    Raises:
        DoesNotFit: if there is no such operator.
    """
    if name in ("identity", "none"):
        if not same_shape:
            raise DoesNotFit(f"{name}: the operator changes the shape")
        return nn.Identity if name == "identity" else Zeros
    if type(present) in CONVS:
        return _beside_conv(present, name)
    if type(present) is nn.Linear:
        return _beside_linear(present, name)
    if name not in ACTIVATIONS:
        raise DoesNotFit(f"{name}: beside an activation there are {', '.join(ACTIVATIONS)}, none")
    return ACTIVATIONS[name]


def keeps_shape(present: nn.Module) -> bool:
    """Whether an operator's output has its input's shape, whatever the size of the input."""
    if type(present) in CONVS:
        part: Any = present
        even = all(step == 1 for step in part.stride) and not any(_excess(part))
        return even and part.in_channels == part.out_channels
    return not isinstance(present, nn.Linear) or present.in_features == present.out_features


def imitate(operator: nn.Module, present: nn.Module) -> None:
    """Move an operator's weights as near to the present one's function as its form allows, where that is known.

    A larger kernel is the present one with zeros around it, a smaller one its middle; a separable convolution is the
    best approximation of the kernel by one spatial filter for each input channel, in the sense of least squares (the
    first singular vectors). Others keep their fresh weights.
    """
    source: Any = present
    if type(present) not in CONVS or source.weight.is_meta:
        return
    parts: list[Any] = list(operator) if isinstance(operator, nn.Sequential) else [operator]
    if any(type(part) not in CONVS for part in parts) or any(step != 1 for step in source.dilation):
        return
    kernel = source.weight.detach().double()
    with torch.no_grad():
        if len(parts) == 1:
            if all(step == 1 for step in parts[0].dilation) and parts[0].groups == source.groups:
                parts[0].weight.copy_(_resized(kernel, tuple(parts[0].kernel_size)))
        elif source.groups == 1:
            depthwise, pointwise = _separated(_resized(kernel, tuple(parts[0].kernel_size)))
            parts[0].weight.copy_(depthwise)
            parts[1].weight.copy_(pointwise)
        if source.bias is not None and parts[-1].bias is not None:
            parts[-1].bias.copy_(source.bias)


def _beside_conv(present: Any, name: str) -> Callable[[], nn.Module]:
    dims, inputs, outputs = CONVS[type(present)], present.in_channels, present.out_channels
    biased, stride, groups = present.bias is not None, tuple(present.stride), present.groups
    if present.padding_mode != "zeros":
        raise DoesNotFit(f"{name}: the present convolution pads with {present.padding_mode}")
    sized = _SIZED.fullmatch(name)
    if name in _POOLS:
        return _pooled(present, name)
    if sized is None:
        raise DoesNotFit(f"{name}: beside a convolution there are {', '.join(BESIDE_CONVS)}, with any kernel size")
    kind, size = sized[1], int(sized[2])
    dilation = 2 if kind == "dilated" else 1
    padding = _padding(present, size, dilation, name)
    where: dict[str, Any] = {"stride": stride, "padding": padding}
    if kind != "separable":
        options = {**where, "dilation": dilation, "groups": groups, "bias": biased}
        return lambda: conv(dims, inputs, outputs, size, **options)
    return lambda: nn.Sequential(
        conv(dims, inputs, inputs, size, groups=inputs, bias=False, **where),
        conv(dims, inputs, outputs, 1, bias=biased),
    )


def _pooled(present: Any, name: str) -> Callable[[], nn.Module]:
    dims, stride = CONVS[type(present)], tuple(present.stride)
    if name == "average-pool" and dims == 3:
        raise DoesNotFit(f"{name}: over volumes torch refuses those that are smaller than the window")
    padding = _padding(present, _WINDOW, 1, name)
    if any(2 * side > _WINDOW for side in padding):
        raise DoesNotFit(f"{name}: a window of {_WINDOW} cannot be padded by {padding}")
    pool, inputs, outputs = _POOLS[name][dims], present.in_channels, present.out_channels
    if inputs == outputs:
        return lambda: pool(_WINDOW, stride=stride, padding=padding)
    return lambda: nn.Sequential(
        pool(_WINDOW, stride=stride, padding=padding), conv(dims, inputs, outputs, 1, bias=False)
    )


def _beside_linear(present: nn.Linear, name: str) -> Callable[[], nn.Module]:
    inputs, outputs, biased = present.in_features, present.out_features, present.bias is not None
    if name != "low-rank":
        raise DoesNotFit(f"{name}: beside a linear map there are {', '.join(BESIDE_LINEAR)}")
    rank = max(1, min(inputs, outputs) // _RANK)
    return lambda: nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=biased))


def _excess(present: Any) -> tuple[int, ...]:
    """By how much the output is longer than the input along each axis, before the stride."""
    reach = [step * (size - 1) for step, size in zip(present.dilation, present.kernel_size, strict=True)]
    if present.padding == "same":
        return (0,) * len(reach)
    sides = (0,) * len(reach) if present.padding == "valid" else present.padding
    return tuple(2 * side - far for side, far in zip(sides, reach, strict=True))


def _padding(present: Any, size: int, dilation: int, name: str) -> tuple[int, ...]:
    """The padding with which another kernel gives outputs of the same size, for inputs of every size."""
    needed = [more + dilation * (size - 1) for more in _excess(present)]
    if any(both < 0 or both % 2 for both in needed):
        raise DoesNotFit(f"{name}: with its kernel no padding gives the present operator's output size")
    return tuple(both // 2 for both in needed)


def _resized(kernel: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """A kernel with zeros around it, or its middle."""
    sides: list[int] = []
    for old, new in zip(reversed(kernel.shape[2:]), reversed(sizes), strict=True):
        sides += [(new - old) // 2, new - old - (new - old) // 2]
    return torch.nn.functional.pad(kernel, sides)


def _separated(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The depthwise and the pointwise kernel whose product is nearest to a dense one."""
    outputs, inputs, *window = kernel.shape
    by_input = kernel.cpu().transpose(0, 1).reshape(inputs, outputs, -1)
    left, values, right = torch.linalg.svd(by_input, full_matrices=False)
    root = values[:, 0].sqrt()[:, None]
    depthwise = (root * right[:, 0]).reshape(inputs, 1, *window)
    pointwise = (root * left[:, :, 0]).transpose(0, 1).reshape(outputs, inputs, *(1 for _ in window))
    return depthwise, pointwise
