"""Which axis of a tensor holds its channels: the one that weights write or read as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import fx

from graphgrow.errors import Declined
from graphgrow.ir.facts import flatten_values
from graphgrow.ir.terms import Space, Term, leaves
from graphgrow.ir.value import Value
from graphgrow.network.overflow import refuse_infinite
from graphgrow.ops.analysis import Analysis


class Layout(Enum):
    """Where the channels of a tensor stand."""

    MAPS = "maps"  # (N, C, positions...)
    FEATURES = "features"  # (N, ..., C)


@dataclass(frozen=True)
class Channels:
    """The channels of one tensor.

    Attributes:
        layout: where they stand.
        count: how many there are.
        shape: the tensor's shape on the example inputs.
        dtype: its dtype.
    """

    layout: Layout
    count: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def dims(self) -> int:
        """Number of spatial axes of maps."""
        return len(self.shape) - 2


class ChannelAxes:
    """The axes along which the weights of a graph write and read.

    Args:
        analysis: of the graph.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._whole: set[tuple[Space, ...]] = set()
        self._weights: set[Value] = set()
        for facts in analysis.facts.values():
            for c in facts.contractions:
                for value, other in ((c.left, c.right), (c.right, c.left)):
                    if value.parameter or (value.constant and not other.constant):  # what a weight norm puts out
                        self._weights.add(value)
                        self._whole.update(_key(term) for term in value.axes)
        for facts in reversed(analysis.facts.values()):  # what such a weight is made of, step by step
            if not facts.contractions and any(value in self._weights for value in flatten_values(facts.output)):
                self._weights.update(value for value in facts.operands if value.constant)

    def of(self, node: fx.Node) -> Channels:
        """The channels of what a node puts out.

        Raises:
            Declined: if it is no batch of floating-point maps or features that weights write or read.
        """
        output = self._analysis.facts[node].output if node in self._analysis.facts else None
        meta = node.meta.get("value")
        if not isinstance(output, Value) or not isinstance(meta, torch.Tensor):
            raise Declined("it puts out no single tensor")
        if not meta.is_floating_point() or meta.dim() < 2:
            raise Declined(f"it puts out {meta.dtype} of shape {tuple(meta.shape)}, no batch of channels")
        if output.parameter or output in self._weights:
            raise Declined("it is a parameter, or a weight that is made of some, and no activation")
        refuse_infinite(output)
        maps, features = (_key(output.axes[axis]) in self._whole for axis in (1, -1))
        shape = tuple(meta.shape)
        if features and not (maps and meta.dim() > 3):
            return Channels(Layout.FEATURES, shape[-1], shape, meta.dtype)
        if maps and 3 <= meta.dim() <= 5:
            return Channels(Layout.MAPS, shape[1], shape, meta.dtype)
        raise Declined("no weight writes or reads one of its axes as channels")


def _key(term: Term) -> tuple[Space, ...]:
    return tuple(leaves(term))
