"""What a network costs, node by node, and what a mutation would add: counted without computing a number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from graphgrow.errors import Unsupported
from graphgrow.ir.inputs import InputSpec
from graphgrow.ir.meta import FIXED, MetaRunner
from graphgrow.network.bare import without_data
from graphgrow.network.neighbours import parameters_of
from graphgrow.network.network import Network, placeholder_values
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation


@dataclass(frozen=True)
class NodeCost:
    """What one node costs.

    Attributes:
        parameters: number of scalar parameters that it holds and no node before it does.
        flops: floating-point operations of one sample.
    """

    parameters: int
    flops: int


@dataclass(frozen=True)
class MutationCost:
    """What a mutation adds to a network; prints as `+1,234 parameters, +0.5 MFLOPs`.

    Attributes:
        parameters: number of scalar parameters, tied ones once.
        flops: floating-point operations of one sample.
    """

    parameters: int
    flops: int

    def __str__(self) -> str:
        noun = "parameter" if abs(self.parameters) == 1 else "parameters"
        return f"{self.parameters:+,} {noun}, {flops_text(self.flops, '+')}"


def count_flops(network: Network, batch_size: int = 1) -> int:
    """Floating-point operations of one forward pass, in eval mode.

    Counted by torch's FlopCounterMode on the meta device: convolutions, matrix products and attention, a
    multiplication and an addition being two. What is elementwise is left out, as is usual. Where values choose how many
    entries there are (`x[mask]`), they are as many as on the example inputs.

    Raises:
        Unsupported: if an operator does not run on a batch of that size, or not without data.
    """
    return sum(node_flops(network, batch_size).values())


def node_costs(network: Network) -> dict[str, NodeCost]:
    """Parameters and FLOPs of each node by its name, in graph order; the FLOPs as `count_flops` counts them.

    Raises:
        Unsupported: as `count_flops`.
    """
    flops = node_flops(network)
    return {name: NodeCost(held, flops[name]) for name, held in node_parameters(network).items()}


def node_parameters(network: Network) -> dict[str, int]:
    """The number of scalar parameters of each node; one that several nodes use counts at the first of them."""
    seen: set[int] = set()
    counts = {}
    for node in network.module.graph.nodes:
        new = {id(parameter): parameter.numel() for parameter in parameters_of(network.module, node)}
        counts[node.name] = sum(count for key, count in new.items() if key not in seen)
        seen.update(new)
    return counts


def node_flops(network: Network, batch_size: int = 1) -> dict[str, int]:
    """The FLOPs of each node by its name, in graph order.

    Raises:
        Unsupported: as `count_flops`.
    """
    args, kwargs = network.inputs.sample(batch_size=batch_size, device="meta")
    inputs = placeholder_values(network.module, InputSpec.of(args, kwargs))
    runner = MetaRunner(network.module, remember=False)
    values: dict[fx.Node, Any] = {}
    totals = [0]
    with FlopCounterMode(display=False) as counter:
        for node in network.module.graph.nodes:
            if node.op == "placeholder":
                values[node] = inputs[node.name]
            elif node.op != "output":
                values[node] = _run(network, runner, node, values, batch_size)
            totals.append(counter.get_total_flops())
    steps = zip(network.module.graph.nodes, pairwise(totals), strict=True)
    return {node.name: after - before for node, (before, after) in steps}


def _run(network: Network, runner: MetaRunner, node: fx.Node, values: dict[fx.Node, Any], batch_size: int) -> Any:
    if FIXED in node.meta and node.op != "call_module":
        return node.meta[FIXED]  # how many entries values choose, as on the example
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        return runner.run(node.op, node.target, args, kwargs)
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        raise Unsupported(
            f"FLOPs cannot be counted: `{network.sites.name(node)}` does not run on a batch of {batch_size} without "
            f"data: {error}. Take the batch size from the input, and decide by shapes, not by values"
        ) from error


@dataclass(frozen=True)
class Outline:
    """A network without its numbers, on which mutations can be tried out at no cost.

    Attributes:
        network: a copy whose tensors are on the meta device.
        parameters: number of scalar parameters, tied ones once.
        flops: of one sample.
    """

    network: Network
    parameters: int
    flops: int

    @classmethod
    def of(cls, network: Network, flops: int) -> Outline:
        """The outline of a network of so many FLOPs, of which nothing is copied but the graph."""
        bare = without_data(network)
        return cls(bare, _count(bare.module), flops)

    def cost(self, mutations: Mutation | str | Iterable[Mutation | str]) -> MutationCost:
        """What one mutation, or several in a row, would add.

        Raises:
            MutationError, Declined: as `apply` does.
            Unsupported: as `count_flops`.
        """
        grown = apply(self.network, mutations)
        return MutationCost(_count(grown.module) - self.parameters, count_flops(grown) - self.flops)


def flops_text(flops: int, sign: str = "") -> str:
    """A number of FLOPs for people, three digits of it: `512 FLOPs`, `0.5 MFLOPs`, `35,128 MFLOPs`.

    Args:
        flops: the number.
        sign: "+" to sign what is positive too.
    """
    millions = flops / 1e6
    if abs(flops) < 10_000:
        return f"{flops:{sign},} FLOPs"
    return f"{millions:{sign},.0f} MFLOPs" if abs(millions) >= 100 else f"{millions:{sign}.3g} MFLOPs"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
