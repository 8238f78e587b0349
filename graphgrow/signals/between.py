"""A channel group that stands between one weight that writes it and one that reads it."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.facts import NodeFacts
from graphgrow.ir.terms import normal, occurs
from graphgrow.ir.value import Value
from graphgrow.network.groups import Group
from graphgrow.network.network import Network

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_PRODUCTS = (
    F.linear, torch.addmm, torch.matmul, torch.mm, operator.matmul, "addmm", "matmul", "mm", "__matmul__",
)  # fmt: skip


@dataclass(frozen=True)
class Map:
    """A linear map that a node applies: nn.Linear, or a convolution without groups and with zeros as padding.

    A product with a parameter, as that of Hugging Face's Conv1D, is one too, like nn.Linear.

    Attributes:
        node: its name.
        source: name of the node that it reads.
        inputs: channels that it reads.
        outputs: channels that it writes.
        kernel: of a convolution, empty for what is like nn.Linear.
        geometry: stride, padding and dilation of a convolution.
        weight: name of the parameter; None where it is computed (a parametrisation).
        columns: whether the parameter holds one output a column, (inputs, outputs), rather than one a row.
    """

    node: str
    source: str
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    geometry: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    weight: str | None = None
    columns: bool = False

    @property
    def fan_in(self) -> int:
        """Numbers that one output unit reads at one position."""
        return self.inputs * torch.Size(self.kernel).numel()

    def apply(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The map with another weight (units, inputs, *kernel)."""
        if not self.kernel:
            return values @ weight.T
        result: torch.Tensor = torch.convolution(
            values, weight, None, *self.geometry, False, (0,) * len(self.kernel), 1
        )
        return result

    def weight_gradient(self, values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient of a weight (outputs, channels of `values`, *kernel) that would read `values`."""
        if not self.kernel:
            return gradient.flatten(0, -2).T @ values.flatten(0, -2)
        shape = (gradient.shape[1], values.shape[1], *self.kernel)
        weight = torch.empty((), dtype=values.dtype, device=values.device).expand(shape)
        dims = len(self.kernel)
        found: torch.Tensor = torch.ops.aten.convolution_backward(
            gradient, values, weight, None, *self.geometry, False, (0,) * dims, 1, (False, True, False)
        )[1]
        return found


@dataclass(frozen=True)
class Between:
    """What writes a group, and what reads it.

    Attributes:
        group: the group's name.
        writer: the one map that writes it.
        reader: the one map that reads it.
        normalised: whether statistics are taken over the units' values on the way.
        rows: along axis 0 of the values for each sample: more than 1 where positions were flattened into the batch.
    """

    group: str
    writer: Map
    reader: Map
    normalised: bool
    rows: int = 1


def between(network: Network, group: Group) -> Between:
    """The writer and the reader of a hidden group.

    Raises:
        Declined: if there are several of either, or values are moved to other positions on the way.
    """
    writers = list(_maps(network, group, writes=True))
    readers = list(_maps(network, group, writes=False))
    if len(writers) != 1 or len(readers) != 1 or len(group.readers) != 1:
        raise Declined(
            f"`{group.name}` is written by {len(writers)} and read by {len(readers)} linear maps or convolutions "
            f"without groups, out of {len(group.members)} members and {len(group.readers)} readers; one of each is "
            "wanted"
        )
    (writer, written), (reader, read) = writers[0], readers[0]
    if tuple(written.meta["value"].shape) != tuple(read.meta["value"].shape):
        raise Declined(f"`{group.name}` has other positions where it is read than where it is written")
    norms = any(
        isinstance(called_module(network.module, facts.node), nn.modules.batchnorm._NormBase) or facts.normalisations
        for facts in network.analysis.touching(group.space)
    )
    batch = network.inputs.batch_size or 1
    return Between(group.name, writer, reader, norms, max(1, int(written.meta["value"].shape[0]) // batch))


def _maps(network: Network, group: Group, writes: bool) -> Iterator[tuple[Map, fx.Node]]:
    """The maps that write, or read, all units of a group along their channels, with the node whose value it is."""
    for facts in network.analysis.touching(group.space):
        if not isinstance(facts.output, Value):
            continue
        if writes:
            over = any(occurs(group.space, term) for term in facts.output.axes)
        else:
            over = any(occurs(group.space, c.term) for c in facts.contractions)
        if not over or (applied := _applied(network, facts)) is None:
            continue
        found, value = applied
        axis = 1 if found.kernel else -1
        if normal((facts.output if writes else value).axes[axis]) is group.space:
            yield found, facts.node if writes else next(n for n in facts.node.all_input_nodes if n.name == found.source)


def _applied(network: Network, facts: NodeFacts) -> tuple[Map, Value] | None:
    """The linear map that a node applies, and the value that it reads; None if it applies none.

    Raises:
        Declined: if it is a convolution of a kind that is not known here.
    """
    module = called_module(network.module, facts.node)
    sums = [(c.left, c.right, c.right_axis) for c in facts.contractions if c.right.parameter]
    if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
        found = linear_map(facts.node, module)
        return replace(found, weight=sums[0][1].name if sums else None), facts.operands[0]
    if module is not None or facts.node.target not in _PRODUCTS or len(facts.contractions) != 1 or not sums:
        return None
    value, weight, axis = sums[0]
    scaled = facts.node.kwargs.get("alpha", 1) != 1
    known = network.analysis.facts
    sources = [n for n in facts.node.all_input_nodes if n in known and known[n].output is value]
    if len(weight.axes) != 2 or len(sources) != 1 or scaled:
        return None
    sizes = [int(size) for size in network.module.get_parameter(weight.name).shape]
    columns = axis % 2 == 0
    inputs, outputs = sizes if columns else reversed(sizes)
    return Map(facts.node.name, sources[0].name, inputs, outputs, (), ((), (), ()), weight.name, columns), value


def linear_map(node: fx.Node, module: nn.Module) -> Map:
    """The linear map that a node's module is.

    Raises:
        Declined: if it has groups, or other padding than zeros.
    """
    source = node.all_input_nodes[0].name
    if isinstance(module, nn.Linear):
        return Map(node.name, source, module.in_features, module.out_features, (), ((), (), ()))
    if not isinstance(module, _CONVOLUTIONS):
        raise Declined(f"`{node.target}` is neither nn.Linear nor a convolution")
    if module.groups > 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise Declined(f"`{node.target}` has groups, padding that is not of zeros, or padding by name")
    geometry = (tuple(module.stride), tuple(module.padding), tuple(module.dilation))
    return Map(node.name, source, module.in_channels, module.out_channels, tuple(module.kernel_size), geometry)
