"""Which nodes of a grown graph are the parent's own, reading the parent's own values: they need not be run twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.graphs.writes import is_inplace
from graphgrow.ir.bits import same_bits
from graphgrow.ir.layers_apart import layers_apart
from graphgrow.verification.places import Counterparts

Operands = frozenset[tuple[str, str]]  # names of the nodes that the parent and the child read in one place


class Alike:
    """Follows both graphs, node by node, and knows where the same operator reads the same bits.

    Args:
        first: the parent.
        second: the child.
        counterparts: how the nodes of both belong together.

    Attributes:
        written: names of the parent's nodes, and of the child's, that overwrite their first argument.
        writes: whether there are any, so that a value of the one cannot be the other's.
    """

    def __init__(self, first: fx.GraphModule, second: fx.GraphModule, counterparts: Counterparts) -> None:
        self._first, self._second, self._counterparts = first, second, counterparts
        self._pairs: set[tuple[str, str]] = set()  # nodes of the parent and of the child whose values are the same
        mine, theirs = ([n.name for n in module.graph.nodes if is_inplace(n, module)] for module in (first, second))
        self.written = (frozenset(mine), frozenset(theirs))
        self.writes = bool(mine or theirs)
        self._broken = mine != theirs

    def at(self, parent: fx.Node, child: fx.Node, operands: Operands | None, mine: Any, theirs: Any) -> bool:
        """Whether a node of the child computes what its counterpart does. Call it once for each node, in graph order.

        Args:
            parent: the node of the parent.
            child: that of the child.
            operands: of the two, as `operands` has them.
            mine: for a placeholder, its value in the parent.
            theirs: and in the child.
        """
        same = _equal(mine, theirs) if child.op == "placeholder" else operands is not None and self._pairs >= operands
        alike = same and not self._broken
        if alike:
            self._pairs.add((parent.name, child.name))
        elif child.name in self.written[1]:
            self._broken = True  # what shares memory with what it wrote is another now
        return alike

    def note(self, origin: str, carrier: str, mine: Any, theirs: Any) -> None:
        """Remember that a node of the child came to a value of the parent's in another way, where it did to the bit."""
        if not self._broken and isinstance(mine, torch.Tensor) and _same_bits(mine, theirs):
            self._pairs.add((origin, carrier))

    def agree(self, read: str, arriving: str) -> bool:
        """Whether two nodes, of the parent and of the child, are known to have the same value, to the bit."""
        return (read, arriving) in self._pairs

    def operands(self, parent: fx.Node, child: fx.Node) -> Operands | None:
        """What two nodes read, in pairs, where both apply one operator with the same numbers of its own; else None."""
        if (parent.op, parent.target) != (child.op, child.target) or child.name in self._counterparts.places:
            return None
        path = str(child.target)
        if child.op == "get_attr":
            same = _same_member(*(_attribute(module, path) for module in (self._first, self._second)))
            return frozenset() if same else None
        mine, read = _opened(parent)
        theirs, arriving = _opened(child)
        if mine != theirs:
            return None
        if child.op == "call_module" and layers_apart(
            self._first.get_submodule(path), self._second.get_submodule(path)
        ):
            return None
        return frozenset(zip(read, arriving, strict=True))


def _opened(node: fx.Node) -> tuple[str, list[str]]:
    """The arguments of a node as text without the names of nodes, and those names in their order."""
    names: list[str] = []

    def hole(used: fx.Node) -> str:
        names.append(used.name)
        return "%"

    return repr(fx.node.map_arg((node.args, dict(node.kwargs)), hole)), names


def _attribute(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def _equal(a: Any, b: Any) -> bool:
    """Whether two inputs are the same, nested as they may be."""
    mine, theirs = pytree.tree_flatten(a), pytree.tree_flatten(b)
    return mine[1] == theirs[1] and all(map(_same_item, mine[0], theirs[0]))


def _same_item(a: Any, b: Any) -> bool:
    return _same_bits(a, b) if isinstance(a, torch.Tensor) else a is b or (type(a) is type(b) and bool(a == b))


def _same_bits(a: torch.Tensor, b: Any) -> bool:
    """Zeros of other signs count as others: 1 / x tells them apart."""
    return isinstance(b, torch.Tensor) and same_bits(a, b)


def _same_member(a: Any, b: Any) -> bool:
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        return not layers_apart(a, b)
    return a is b or (isinstance(a, torch.Tensor) and _same_bits(a, b))
