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

# Under an odd activation, or none, a unit and its mirror image would learn the same for ever.
RECTIFIERS = (nn.ReLU, nn.ReLU6)


class Block(nn.Module):
    """A piece of network that is put into a graph operator by operator.

    Its forward must be traceable by plain torch.fx, and every leaf a module of torch.nn or of graphgrow.layers.

    Attributes:
        closed: names of the linear maps that start at zero.
        activated: paths of a map, of what may stand behind it, and of an activation. In front of a rectifier with no
            norm between, the second unit starts as the first one's mirror image: however few units there are, and
            whatever sign the inputs have, one of the two is passed on.
    """

    closed: ClassVar[tuple[str, ...]] = ()
    activated: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def start(self, generator: torch.Generator) -> None:
        """Draw the starting weights in place: He-normal maps, zero biases, norms at one; closed maps at zero.

        In front of a rectifier the first two units are w and -w, where they read the same inputs.

        He et al., "Delving deep into rectifiers", 2015 (arXiv:1502.01852).
        """
        for path, part in self.named_modules():
            if isinstance(part, LINEAR):
                _start_linear(part, path in self.closed, generator)
            elif isinstance(part, NORMS):
                part.reset_parameters()
            elif isinstance(part, (Gate, Blend)):
                part.get_parameter("gate" if isinstance(part, Gate) else "s").data.zero_()
        for path, *between, last in self.activated:
            plain = all(isinstance(self.get_submodule(name), nn.Identity) for name in between)
            if plain and isinstance(self.get_submodule(last), RECTIFIERS):
                _mirror_first_unit(self.get_submodule(path))


def _start_linear(part: nn.Module, closed: bool, generator: torch.Generator) -> None:
    weight, bias = part.get_parameter("weight"), part._parameters.get("bias")
    if closed:
        nn.init.zeros_(weight)
    else:
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    if bias is not None:
        nn.init.zeros_(bias)


def _mirror_first_unit(part: nn.Module) -> None:
    """Let the second unit be the first one's mirror image, unless they read other channels or there is but one."""
    weight = part.get_parameter("weight")
    if len(weight) // getattr(part, "groups", 1) > 1:
        with torch.no_grad():
            weight[1] = -weight[0]


def conv(dims: int, *args: int, **options: object) -> nn.Module:
    """A convolution over `dims` spatial axes."""
    classes: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    return classes[dims](*args, **options)
