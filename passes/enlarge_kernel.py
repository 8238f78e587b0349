"""enlarge-kernel: a larger convolution kernel with zeros around the old one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.network import Network, Step
from graphgrow.rewrite.roles import Role
from graphgrow.rewrite.shapes import check_shapes
from graphgrow.rewrite.tensors import laid_out_like

_CLASSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class EnlargeKernel(Mutation):
    """Enlarge the kernel of a convolution: rings of zeros around the old taps, and as much more padding.

    Axes of length 1 stay, unless all are. Exact in eval and train mode for zero padding and an unchanged parity; the
    new taps have a gradient at once (Wei et al., "Network morphism", 2016, section 3.4; arXiv:1603.01670).

    Attributes:
        conv: module path of the convolution.
        to: the new size of each kernel axis that grows; 0 for two more than the largest.
    """

    conv: str
    to: int = 0
    name: ClassVar[str] = "enlarge-kernel"
    summary: ClassVar[str] = "a larger convolution kernel with zeros around the old one"

    @classmethod
    def sites(cls, network: Network) -> Iterator[EnlargeKernel | Refusal]:
        """Every convolution, by two."""
        paths = {str(node.target): None for node in network.module.graph.nodes if node.op == "call_module"}
        for path in paths:
            module = network.module.get_submodule(path)
            if not isinstance(module, _CLASSES):
                continue
            mutation = cls(path, max(module.kernel_size) + 2)
            try:
                mutation._sizes(network)
            except Declined as declined:
                yield Refusal(path, str(declined))
                continue
            yield mutation

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Enlarge the kernel."""
        path = str(network.sites.find(self.conv).target)
        sizes = self._sizes(network)
        module: Any = editor.module.get_submodule(path)  # all six classes have the same fields
        rings = tuple((new - old) // 2 for old, new in zip(module.kernel_size, sizes, strict=True))
        old = module.weight
        editor.set_tensor(_names(editor.module, old), laid_out_like(_ringed(old.detach(), rings), old))
        padding: Any = module.padding
        if padding == "valid":
            padding = (0,) * len(rings)
        if padding != "same":
            grown = (p + d * r for p, d, r in zip(padding, module.dilation, rings, strict=True))
            module.padding = tuple(grown)
        module.kernel_size = sizes
        if hasattr(module, "_reversed_padding_repeated_twice"):
            module._reversed_padding_repeated_twice = _both_sides(module, rings)
        check_shapes(network, editor)
        names = _names(editor.module, module.weight)
        middle = zip(old.shape[2:], rings, strict=True)
        kept = {axis: torch.arange(size) + ring for axis, (size, ring) in enumerate(middle, 2)}
        step = Step(tensors=dict.fromkeys(names, kept), touched=names)
        return step, [TensorChange(names, old, module.weight, lambda state, role: _carry(state, role, rings))]

    def _sizes(self, network: Network) -> tuple[int, ...]:
        """The new kernel size, one number for each axis.

        Raises:
            Declined, MutationError: as `rewrite` does.
        """
        node = network.sites.find(self.conv)
        module = network.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, _CLASSES) or type(module) not in _CLASSES:
            raise Declined(f"`{self.conv}` is no convolution module of torch.nn")
        old = tuple(module.kernel_size)
        to = self.to or max(old) + 2
        if module.padding_mode != "zeros":
            raise Declined(f"`{self.conv}` pads with {module.padding_mode}: more padding would repeat other values")
        if module._parameters.get("weight") is None or _uses(network, module.weight) > 1:
            raise Declined(f"the weight of `{self.conv}` is used by other operators too")
        if to <= max(old):
            raise MutationError(f"to={to}: `{self.conv}` has a kernel of {old}, a larger one is wanted")
        sizes = tuple(size if size == 1 < max(old) else to for size in old)
        wrong = [size for size, new in zip(old, sizes, strict=True) if (new - size) % 2]
        if wrong:
            raise Declined(f"to={to}: a kernel of {old} cannot stay in the middle, since the parity changes")
        return sizes


def _names(module: nn.Module, tensor: torch.Tensor) -> tuple[str, ...]:
    return tuple(name for name, p in module.named_parameters(remove_duplicate=False) if p is tensor)


def _uses(network: Network, weight: torch.Tensor) -> int:
    """How many names the parameter has, and how many nodes fetch it bare."""
    names = _names(network.module, weight)
    fetches = sum(node.op == "get_attr" and str(node.target) in names for node in network.module.graph.nodes)
    return len(names) + int(fetches)


def _ringed(tensor: torch.Tensor, rings: tuple[int, ...], value: float = 0.0) -> torch.Tensor:
    return F.pad(tensor, [side for ring in reversed(rings) for side in (ring, ring)], value=value)


def _both_sides(module: Any, rings: tuple[int, ...]) -> Sequence[int]:
    """Torch's private copy of the padding, for the modes that pad with other values than zeros."""
    if module.padding == "same":
        before = module._reversed_padding_repeated_twice
        extra = [d * r for d, r in zip(module.dilation, rings, strict=True) for _ in (0, 1)]
        return [a + b for a, b in zip(before, reversed(extra), strict=True)]
    return tuple(p for p in reversed(module.padding) for _ in (0, 1))


def _carry(state: torch.Tensor, role: Role, rings: tuple[int, ...]) -> torch.Tensor:
    """New taps: no first moment; the second moment is the mean over the old taps, since `step` is carried over."""
    grown = _ringed(state, rings)
    if not role.averaged:
        return grown
    inside = _ringed(torch.ones_like(state), rings) > 0
    mean = state.mean(tuple(range(2, state.dim())), keepdim=True)
    return torch.where(inside, grown, mean.expand_as(grown))
