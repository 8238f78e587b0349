"""Which block joins one value of a graph to another: a gate where shapes agree, else a projection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from torch import fx

from graphgrow.blocks.block import Block
from graphgrow.blocks.connection import GatedSkip, ProjectedFeatures, ProjectedMaps
from graphgrow.errors import Declined, MutationError
from graphgrow.ir.terms import Space, leaves
from graphgrow.ir.value import Value
from graphgrow.network.channels import Channels, Layout
from graphgrow.network.network import Network
from graphgrow.ops.by_values import COUNTED
from graphgrow.rewrite.topology import reaches


def connection(network: Network, source: fx.Node, target: fx.Node) -> Callable[[], Block]:
    """The block that joins two values: called as block(source, target), closed at the start.

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
    if a.layout is not b.layout or len(a.shape) != len(b.shape):  # of equal shapes too, on an example as long as wide
        raise Declined(f"{a.layout.value} of shape {a.shape} and {b.layout.value} of shape {b.shape} cannot be added")
    _refuse_unrelated_sizes(network, source, target, b)
    if a.shape == b.shape:
        return GatedSkip
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
    """Sizes of two inputs, or of two axes of one, or of an input and a parameter, may agree on the example alone.

    Raises:
        Declined: if an axis besides the channels has its size from another axis of the inputs in each, from the
            inputs in one and from a parameter in the other, or from values that are not those of the other.
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
        terms = [value.axes[axis] for value in (mine, theirs)]
        counted = [{leaf for leaf in leaves(term) if leaf.frozen and leaf.frozen.text == COUNTED} for term in terms]
        if axis != own and counted[0] != counted[1]:
            one = (source if counted[0] else target).name
            raise Declined(f"axis {axis} of `{one}` is as long as values decide: it may differ in another call")
        settled = [network.analysis.settled.issuperset(leaves(term)) for term in terms]
        if axis != own and terms[0].size == terms[1].size and settled[0] != settled[1]:
            given, other = (target, source) if settled[0] else (source, target)
            said = f"axis {axis} of `{given.name}` is as long as the inputs make it"
            raise Declined(f"{said}, and that of `{other.name}` as a parameter")
