"""The base of all blocks: how their weights start."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from graphgrow.layers import Blend, Gate

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
)  # fmt: skip


class Block(nn.Module):
    """A piece of network that is put into a graph operator by operator.

    Its forward must be traceable by plain torch.fx, and every leaf a module of torch.nn or of graphgrow.layers.

    Attributes:
        closed: names of the linear maps that start at zero.
    """

    closed: ClassVar[tuple[str, ...]] = ()

    def start(self, generator: torch.Generator) -> None:
        """Draw the starting weights in place: He-normal maps, zero biases, norms at one; closed maps at zero.

        He et al., "Delving deep into rectifiers", 2015 (arXiv:1502.01852).
        """
        for path, part in self.named_modules():
            if isinstance(part, LINEAR):
                _start_linear(part, path in self.closed, generator)
            elif isinstance(part, NORMS):
                part.reset_parameters()
            elif isinstance(part, (Gate, Blend)):
                part.get_parameter("gate" if isinstance(part, Gate) else "s").data.zero_()


def _start_linear(part: nn.Module, closed: bool, generator: torch.Generator) -> None:
    weight, bias = part.get_parameter("weight"), part._parameters.get("bias")
    if closed:
        nn.init.zeros_(weight)
    else:
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    if bias is not None:
        nn.init.zeros_(bias)


def conv(dims: int, *args: int, **options: object) -> nn.Module:
    """A convolution over `dims` spatial axes."""
    classes: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    return classes[dims](*args, **options)
