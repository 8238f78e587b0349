"""swap-activation: a trainable passage from one activation to another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import fx, nn

from graphgrow.blocks.activations import ACTIVATIONS, as_module, name_of
from graphgrow.errors import Declined, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.layers import Blend
from graphgrow.network.junctions import is_activation
from graphgrow.network.network import Network, Step
from graphgrow.network.overflow import refuse_infinite
from graphgrow.network.unheard import NOTHING_LEARNS, unheard
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.exchange import exchange


@dataclass(frozen=True)
class SwapActivation(Mutation):
    """Replace an activation f by (1 - s) f + s g, with a trainable share s that starts at 0.

    From a (leaky) ReLU to PReLU the way is direct: a PReLU with that slope (not where a leaky ReLU of half precision
    computes with a slope that a parameter of that precision cannot hold). `settle-activation` removes f when s has
    arrived at 1. Exact in eval and train mode for finite inputs.

    Attributes:
        site: an activation: its module path, or an operator as `module:relu`.
        to: the new activation; see `graphgrow.blocks.activations.ACTIVATIONS`.
    """

    site: str
    to: str
    name: ClassVar[str] = "swap-activation"
    summary: ClassVar[str] = "a trainable passage from one activation to another"

    @classmethod
    def sites(cls, network: Network) -> Iterator[SwapActivation | Refusal]:
        """Every activation: to GELU, or to SiLU where it is one already."""
        silent = unheard(network.module)
        for node in network.module.graph.nodes:
            if not node.op.startswith("call") or not is_activation(network, node):
                continue
            name = network.sites.name(node)
            if node in silent:
                yield Refusal(name, NOTHING_LEARNS)
                continue
            try:
                present = name_of(_present(network.module, node))
                refuse_infinite(network.analysis.facts[node.all_input_nodes[0]].output)
            except Declined as declined:
                yield Refusal(name, str(declined))
                continue
            yield cls(name, "silu" if present == "gelu" else "gelu")

    def varied(self, network: Network, draw: random.Random) -> SwapActivation:
        """To any other of the list."""
        present = name_of(_present(network.module, network.sites.find(self.site)))
        return replace(self, to=draw.choice([name for name in ACTIVATIONS if name != present]))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Put the passage in the activation's place."""
        if self.to not in ACTIVATIONS:
            raise MutationError(f"to={self.to}: there are {', '.join(ACTIVATIONS)}")
        node = network.sites.find(self.site)
        old = _present(editor.module, node)
        refuse_infinite(network.analysis.facts[node.all_input_nodes[0]].output)
        if name_of(old) == self.to:
            raise MutationError(f"to={self.to}: `{self.site}` is one already")
        slope, dtype = _slope(old), node.meta["value"].dtype
        if self.to != "prelu" or slope is None or not (dtype.itemsize >= 4 or _holds(dtype, slope)):
            return exchange(network, editor, node, Blend(old, ACTIVATIONS[self.to]()), self.site, self.name), []
        direct = nn.PReLU(init=slope, dtype=torch.float64)
        step = exchange(network, editor, node, direct, self.site, self.name)
        return replace(step, rounded=not _holds(dtype, slope)), []


def _present(graph: nn.Module, node: fx.Node) -> nn.Module:
    """The activation of a node as a module over the tensors of `graph`.

    Raises:
        Declined: if it is none of the list, one that holds a slope for each channel, or of whole numbers.
    """
    module = called_module(graph, node)
    if isinstance(module, Blend):
        raise Declined("a swap is under way here; finish it with settle-activation first")
    found = as_module(module, node.target, node.args[1:], node.kwargs) if node.op.startswith("call") else None
    if found is None:
        raise Declined("it is no activation that can be blended; known are " + ", ".join(ACTIVATIONS))
    if isinstance(found, nn.PReLU) and found.num_parameters > 1:
        raise Declined("a PReLU with a slope for each channel")
    value = node.meta["value"]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise Declined("it puts out no floating-point tensor, which a share could be taken of")
    return found


def _holds(dtype: torch.dtype, number: float) -> bool:
    return float(torch.tensor(number, dtype=dtype)) == number


def _slope(module: nn.Module) -> float | None:
    """The slope below zero of a (leaky) ReLU."""
    if isinstance(module, nn.LeakyReLU):
        return float(module.negative_slope)
    return 0.0 if type(module) is nn.ReLU else None
