"""shrink-kernel: take rings of zeros off a convolution kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.kernels import CONVOLUTIONS, change_rings, convolution


@dataclass(frozen=True)
class ShrinkKernel(Mutation):
    """Take the outer taps of a kernel away that are zero, and as much padding: the inverse of `enlarge-kernel`.

    It declines where a tap is not zero, or there is less padding than taps that go. Exact in eval and train mode.

    Attributes:
        conv: module path of the convolution.
        to: the new size of each kernel axis.
    """

    conv: str
    to: tuple[int, ...]
    name: ClassVar[str] = "shrink-kernel"
    summary: ClassVar[str] = "take rings of zeros off a convolution kernel"
    places: ClassVar[tuple[str, ...]] = ("conv",)

    @classmethod
    def sites(cls, network: Network) -> Iterator[ShrinkKernel | Refusal]:
        """Every convolution with outer taps of zero: to the smallest kernel."""
        paths = {str(node.target): None for node in network.module.graph.nodes if node.op == "call_module"}
        for path in paths:
            module: Any = network.module.get_submodule(path)
            if not isinstance(module, CONVOLUTIONS) or max(module.kernel_size) < 3:
                continue
            sizes = _smallest(module)
            if sizes == tuple(module.kernel_size):
                yield Refusal(path, "an outer tap is not zero")
                continue
            mutation = cls(path, sizes)
            yield offered(mutation, partial(mutation._rings, network))

    def admit(self, network: Network) -> None:
        """Decline where a tap that would go is not zero."""
        rings = self._rings(network)
        weight = convolution(network, self.conv).weight.detach()
        if weight.is_meta:
            return
        inner = weight.clone()
        inner[(..., *(slice(-r, size + r) for size, r in zip(weight.shape[2:], rings, strict=True)))] = 0
        if bool(inner.any()):
            raise Declined(f"an outer tap of `{self.conv}` is not zero")

    def rests_on(self, network: Network) -> frozenset[str]:
        """The kernel."""
        return frozenset({f"{network.sites.find(self.conv).target}.weight"})

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Take the rings off."""
        return change_rings(network, editor, self.conv, self._rings(network))

    def _rings(self, network: Network) -> tuple[int, ...]:
        """How many rings go, below zero, for each axis.

        Raises:
            Declined, MutationError: as `rewrite` does.
        """
        module = convolution(network, self.conv)
        old = tuple(module.kernel_size)
        if len(self.to) != len(old) or not all(0 < new <= size for new, size in zip(self.to, old, strict=True)):
            raise MutationError(f"to={list(self.to)}: `{self.conv}` has a kernel of {old}, smaller sizes are wanted")
        if self.to == old:
            raise MutationError(f"to={list(self.to)}: `{self.conv}` has that kernel already")
        if any((size - new) % 2 for new, size in zip(self.to, old, strict=True)):
            raise Declined(f"to={list(self.to)}: the middle of a kernel of {old} would move, since the parity changes")
        rings = tuple((new - size) // 2 for new, size in zip(self.to, old, strict=True))
        padding = (0,) * len(old) if module.padding == "valid" else module.padding
        if padding != "same" and any(p + d * r < 0 for p, d, r in zip(padding, module.dilation, rings, strict=True)):
            raise Declined(f"`{self.conv}` is padded by {tuple(padding)}: without these taps it would put out more")
        return rings


def _smallest(module: Any) -> tuple[int, ...]:
    """The kernel size that is left when all outer rings of zeros that the padding admits are gone."""
    weight = module.weight.detach()
    if weight.is_meta:
        return tuple(module.kernel_size)
    sizes = []
    for axis, size in enumerate(weight.shape[2:], 2):
        used = (weight != 0).movedim(axis, 0).flatten(1).any(1)
        ring, most = 0, (size - 1) // 2
        if not isinstance(module.padding, str):
            most = min(most, module.padding[axis - 2] // module.dilation[axis - 2])
        elif module.padding == "valid":
            most = 0
        while ring < most and not bool(used[ring]) and not bool(used[size - 1 - ring]):
            ring += 1
        sizes.append(size - 2 * ring)
    return tuple(sizes)
