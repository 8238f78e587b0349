"""Operators whose answer has a form that the values of tensors decide: how many entries are chosen, which number it is.

Their example is what they answer on the example inputs. In the graph they are asked in every call, so that it holds for
all inputs, as long as nothing else is decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.graphs.writes import Write, storages_of
from graphgrow.capture.tracing.known import Fetching, fetched
from graphgrow.errors import CaptureError
from graphgrow.layers import CHECKS

_CHOSEN = {
    torch.nonzero, "nonzero", torch.bincount, "bincount", torch.unique, "unique", torch.unique_consecutive,
    "unique_consecutive",
}  # fmt: skip
REPEATED = {torch.repeat_interleave, "repeat_interleave"}


class ValuesError(CaptureError):
    """An operator that cannot be run on shapes alone."""


class Holder(Fetching, Protocol):
    """What a tracer offers here, besides.

    Attributes:
        graph: as far as it is recorded.
        root: the model.
        replaced: by path, the layers that the graph calls in the place of the model's.
        writes: the nodes that overwrite memory.
    """

    graph: fx.Graph
    root: nn.Module
    replaced: dict[str, nn.Module]
    writes: dict[fx.Node, Write]

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record one operator."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """In which what runs is not recorded."""
        ...


def decided_by_values(kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether values decide the form of what an operator answers."""
    if not kind.startswith("call_"):
        return False
    if kind == "call_method" and target == "item":
        return bool(args[0].example.is_meta)
    if target in REPEATED:
        return len(args) + len(kwargs) == 1  # else it is the rows that are repeated
    return target in _CHOSEN


class OnExamples:
    """Runs a graph on the example inputs while it is recorded, as far as it is asked to.

    Args:
        tracer: that records it.
        examples: by name of the placeholder, its value.
    """

    def __init__(self, tracer: Holder, examples: Mapping[str, Any]) -> None:
        self._tracer, self._examples = tracer, examples
        self._values: dict[fx.Node, Any] = {}
        self._parameters = frozenset[int]()  # their storages

    def of(self, node: fx.Node) -> Any:
        """What a node answers; everything in front of it is run once, in its order.

        Raises:
            CaptureError: if a parameter of the model would be overwritten.
        """
        if not self._values:
            with self._tracer.aside():
                self._parameters = storages_of(list(self._tracer.root.parameters()))
        with torch.random.fork_rng(devices=[]):
            for item in self._tracer.graph.nodes:
                if item not in self._values:
                    self._values[item] = self._run(item)
                if item is node:
                    break
        return self._values[node]

    def _run(self, node: fx.Node) -> Any:
        name = str(node.target)
        if node.op == "placeholder":
            example = self._examples[name]
            return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, example)
        if node.op == "get_attr":  # what the forward has made of numbers is given to the graph as it was then
            value = fetched(name, self._tracer)
            return value.clone() if name in self._tracer.constants else value
        if node.target in CHECKS:  # on a path that is looked into, the example may be what the model refuses
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda used: self._values[used])
        write = self._tracer.writes.get(node)
        if write is not None and storages_of(self._values[write.target]) & self._parameters:
            raise CaptureError(
                f"at {write.line} the forward overwrites a parameter, and asks for the values of tensors; do one of "
                "both outside of it, or mark the submodule as a leaf"
            )
        if node.op == "call_module":
            layer = self._tracer.replaced.get(name) or self._tracer.root.get_submodule(name)
            return self._tracer.by_itself("call_function", layer, args, kwargs)
        return self._tracer.by_itself(node.op, node.target, args, kwargs)
