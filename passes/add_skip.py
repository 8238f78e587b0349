"""add-skip: a new connection from one value to another's output, closed at the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

import torch
from torch import fx

from graphgrow.blocks.block import Block
from graphgrow.blocks.connection import GatedSkip, ProjectedFeatures, ProjectedMaps
from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.ir.terms import Space, leaves
from graphgrow.ir.value import Value
from graphgrow.rewrite.channels import Channels, Layout
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.insert import Insertion
from graphgrow.rewrite.junctions import junctions
from graphgrow.rewrite.network import Network, Step
from graphgrow.rewrite.topology import reaches

NEAREST = 2  # connections listed for each target; a longer list would grow with the square of the depth


@dataclass(frozen=True)
class AddSkip(Mutation):
    """Add one value to another's output, by a connection that starts closed.

    Where shapes agree it is the value itself behind a scalar gate that starts at 0. Otherwise it is a linear map that
    starts at zero, without a gate: 1x1 on maps, pooled to the target's resolution where that falls by whole numbers,
    else interpolated; resolutions that are equal must stay so for inputs of other sizes. What read the target reads
    the sum. Exact in eval and train mode.

    Attributes:
        source: the site that is read, in front of the target.
        target: the site to which it is added.
    """

    source: str
    target: str
    name: ClassVar[str] = "add-skip"
    summary: ClassVar[str] = "a new connection from one value to another, closed at the start"

    @classmethod
    def sites(cls, network: Network) -> Iterator[AddSkip | Refusal]:
        """For each junction those two in front of it that are nearest, not its own operands, and not joined to it."""
        passed: list[fx.Node] = []
        for target in junctions(network):
            name = network.sites.name(target)
            found, why = 0, "nothing stands in front of it"
            for source in reversed(passed):
                if found == NEAREST or source in target.all_input_nodes:
                    continue
                try:
                    _connection(network, source, target)
                except Declined as declined:
                    why = str(declined)
                    continue
                found += 1
                yield cls(network.sites.name(source), name)
            if not found:
                yield Refusal(name, why)
            passed.append(target)
            del passed[:-8]  # a cap on the distance

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Make the connection."""
        source, target = network.sites.find(self.source), network.sites.find(self.target)
        block = _connection(network, source, target)
        insertion = Insertion(network, editor, self.target, self.name, generator)
        read = insertion.readable(editor.node(source.name))
        insertion.behind(insertion.site)
        insertion.carry_on(insertion.site, insertion.inline(insertion.make(block), [read, insertion.site]))
        return insertion.step(), []


def _connection(network: Network, source: fx.Node, target: fx.Node) -> Callable[[], Block]:
    """The block that joins two values.

    Raises:
        Declined: if they cannot be joined.
    """
    if source is target:
        raise MutationError("a value cannot be added to itself; give two sites")
    if network.sites.position(source) > network.sites.position(target):
        if reaches(network, target.name, source.name):
            raise Declined(f"a cycle would arise: `{source.name}` is computed from `{target.name}`")
        raise Declined(f"`{source.name}` runs behind `{target.name}`, whose readers cannot wait for it")
    if source.op == "placeholder":
        raise Declined(f"`{source.name}` is an input of the model, whose sizes are not the model's to choose")
    a, b = network.channels.of(source), network.channels.of(target)
    if a.dtype != b.dtype or a.shape[0] != b.shape[0]:
        raise Declined(f"batch or dtype differ: {a.shape} of {a.dtype} and {b.shape} of {b.dtype}")
    if len(a.shape) == len(b.shape):
        _refuse_unrelated_sizes(network, source, target, b)
    if a.shape == b.shape:
        return GatedSkip
    if a.layout is not b.layout or len(a.shape) != len(b.shape):
        raise Declined(f"{a.layout.value} of shape {a.shape} and {b.layout.value} of shape {b.shape} cannot be added")
    if a.layout is Layout.FEATURES:
        if a.shape[:-1] != b.shape[:-1]:
            raise Declined(f"the lengths of {a.shape} and {b.shape} differ")
        return lambda: ProjectedFeatures(a.count, b.count)
    return _on_maps(a, b)


def _on_maps(a: Channels, b: Channels) -> Callable[[], Block]:
    before, behind = a.shape[2:], b.shape[2:]
    resize = None if before == behind else "pool" if _divides(before, behind) else "nearest"
    return lambda: ProjectedMaps(a.count, b.count, a.dims, resize)


def _divides(before: Sequence[int], behind: Sequence[int]) -> bool:
    """Whether the resolution falls by whole numbers."""
    return not any(big % small for big, small in zip(before, behind, strict=True))


def _refuse_unrelated_sizes(network: Network, source: fx.Node, target: fx.Node, channels: Channels) -> None:
    """Sizes of two inputs, or of two axes of one, may agree on the example and differ on the next call.

    Raises:
        Declined: if an axis besides the channels has its size from another axis of the inputs in each.
    """
    origins: dict[Space, str] = {}
    for node in takewhile(lambda node: node.op == "placeholder", network.module.graph.nodes):
        value = network.analysis.facts[node].output
        for axis, term in enumerate(value.axes if isinstance(value, Value) else ()):
            name = f"axis {axis} of `{node.name}`" if axis else "the batch"
            origins.update((leaf, name) for leaf in leaves(term) if leaf not in origins or not axis)
    mine, theirs = (network.analysis.facts[node].output for node in (source, target))
    own = 1 if channels.layout is Layout.MAPS else len(channels.shape) - 1
    for axis in range(len(channels.shape)):
        found = [[origins.get(leaf) for leaf in leaves(value.axes[axis])] for value in (mine, theirs)]
        if axis != own and found[0] != found[1] and None not in found[0] + found[1]:
            was, now = (" x ".join(map(str, names)) for names in found)
            raise Declined(f"axis {axis} is {was} in `{source.name}` and {now} in `{target.name}`: other inputs differ")
