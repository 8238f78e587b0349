"""enlarge-kernel: a larger convolution kernel with zeros around the old one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import fx

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.kernels import CONVOLUTIONS, change_rings, convolution


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
    places: ClassVar[tuple[str, ...]] = ("conv",)

    @classmethod
    def sites(cls, network: Network) -> Iterator[EnlargeKernel | Refusal]:
        """Every convolution, by two."""
        paths = {str(node.target): None for node in network.module.graph.nodes if node.op == "call_module"}
        for path in paths:
            module = network.module.get_submodule(path)
            if not isinstance(module, CONVOLUTIONS):
                continue
            mutation = cls(path, max(module.kernel_size) + 2)
            yield offered(mutation, partial(mutation._sizes, network))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Enlarge the kernel."""
        sizes = self._sizes(network)
        module = convolution(network, self.conv)
        rings = tuple((new - old) // 2 for old, new in zip(module.kernel_size, sizes, strict=True))
        return change_rings(network, editor, self.conv, rings)

    def _sizes(self, network: Network) -> tuple[int, ...]:
        """The new kernel size, one number for each axis.

        Raises:
            Declined, MutationError: as `rewrite` does.
        """
        module = convolution(network, self.conv)
        old = tuple(module.kernel_size)
        to = self.to or max(old) + 2
        if to <= max(old):
            raise MutationError(f"to={to}: `{self.conv}` has a kernel of {old}, a larger one is wanted")
        sizes = tuple(size if size == 1 < max(old) else to for size in old)
        wrong = [size for size, new in zip(old, sizes, strict=True) if (new - size) % 2]
        if wrong:
            raise Declined(f"to={to}: a kernel of {old} cannot stay in the middle, since the parity changes")
        target = network.sites.find(self.conv).target
        calls = [node for node in network.module.graph.nodes if node.op == "call_module" and node.target == target]
        if not any(_reaches(module, call, old, sizes) for call in calls):
            shape = tuple(calls[0].all_input_nodes[0].meta["value"].shape)
            raise Declined(
                f"to={to}: every new tap of `{self.conv}` would meet padding alone, and never learn: its maps have "
                f"shape {shape}; trace with larger example inputs, if they can be larger"
            )
        return sizes


def _reaches(module: Any, call: fx.Node, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether a new tap along some axis meets a value in this call: taps go from the smaller to the larger side."""
    read = call.all_input_nodes[0]  # behind it there may be nodes of an output_size
    inside, outside = (node.meta["value"].shape[-len(old) :] for node in (call, read))
    if module.transposed:
        inside, outside = outside, inside
    return any(
        0 <= place * module.stride[axis] - _before(module, axis) + tap * module.dilation[axis] < outside[axis]
        for axis, (small, large) in enumerate(zip(old, new, strict=True))
        for ring in [(large - small) // 2]
        for tap in (*range(-ring, 0), *range(small, small + ring))
        for place in range(inside[axis])
    )


def _before(module: Any, axis: int) -> int:
    """How much padding stands in front of an axis."""
    if isinstance(module.padding, str):
        whole = module.dilation[axis] * (module.kernel_size[axis] - 1)
        return int(whole // 2) if module.padding == "same" else 0
    return int(module.padding[axis])
