"""One graph for both modes where the forward does a little more, or something else, in one of them.

The two graphs are laid side by side; what only one has is put into the other, and where a common operator reads one
value in train mode and another in eval mode, a small module picks by its `training` flag; so does one that stores in a
buffer. In train mode every node of the train graph computes what it did, in eval mode every node of the eval graph.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from graphgrow.capture.graphs.modes import EFFECTS, has_mode_flag
from graphgrow.capture.graphs.writes import is_inplace, storages_of
from graphgrow.ir.meta import STACK, values_of
from graphgrow.layers import ByMode, CopyInOneMode, set_item, store_

_SHARE = 2  # of so many nodes at most one may be of one mode alone
_PICKS, _STORES = "by_mode", "in_one_mode"


@dataclass
class BothModes:
    """One graph for both modes.

    Attributes:
        graph: with the nodes of both.
        flagged: its nodes that differ between the modes in a mode flag, which is that of train mode.
        modules: by path, those that pick or store by the mode.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    flagged: list[fx.Node] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)


def merged(train: fx.Graph, evaluation: fx.Graph, model: nn.Module, owners: Collection[str]) -> BothModes | None:
    """Make one graph of the two of a model; None where more differs than a few operators without state or effects.

    Args:
        train: the graph of train mode, whose nodes have example values; it stays as it is.
        evaluation: that of eval mode, likewise.
        model: of both.
        owners: paths of the modules whose mode is asked for: what picks by the mode stands below one of them.
    """
    first, second = list(train.nodes), list(evaluation.nodes)
    matcher = difflib.SequenceMatcher(None, [*map(_key, first)], [*map(_key, second)], autojunk=False)
    parts = [(kind == "equal", first[a:b], second[c:d]) for kind, a, b, c, d in matcher.get_opcodes()]
    alone = {node for equal, *sides in parts if not equal for nodes in sides for node in nodes}
    if _SHARE * len(alone) > len(first) + len(second):
        return None
    for nodes in (first, second):
        shared = frozenset().union(*(storages_of(n.meta.get("value")) for n in nodes if not _makes_memory(n, alone)))
        if not all(_is_free(node, model, shared) for node in nodes if node in alone):
            return None
    merger = _Merger(model, owners, alone)
    return merger.both if all(merger.add(*part) for part in parts) else None


class _Merger:
    """Puts two graphs together, one stretch after the other."""

    def __init__(self, model: nn.Module, owners: Collection[str], alone: set[fx.Node]) -> None:
        self._model, self._owners, self._alone = model, owners, alone
        self._mine: dict[fx.Node, fx.Node] = {}  # by node of train mode, where its value is in train mode
        self._theirs: dict[fx.Node, fx.Node] = {}  # by node of eval mode, where its value is in eval mode
        self._picks: dict[tuple[fx.Node, fx.Node], fx.Node] = {}
        self.both = BothModes()

    def add(self, equal: bool, first: list[fx.Node], second: list[fx.Node]) -> bool:
        """Take in a stretch that both have, or what each has instead of the other's; False where it cannot be."""
        if equal:
            return all(self._join(one, other) for one, other in zip(first, second, strict=True))
        for nodes, known in ((first, self._mine), (second, self._theirs)):
            for node in nodes:
                known[node] = self.both.graph.node_copy(node, known.__getitem__)
                if _stores(node):
                    stores = CopyInOneMode(in_train=known is self._mine, unseen=node.target is store_)
                    path = self._add(stores, node, _STORES)
                    known[node].op, known[node].target = "call_module", path
        return True

    def _join(self, one: fx.Node, other: fx.Node) -> bool:
        """Let one node stand for two; False where they read what cannot be one."""
        form, mine = _form(one)
        other_form, theirs = _form(other)
        read = [self._picked(x, y, one) for x, y in zip(mine, theirs, strict=False)]
        if len(mine) != len(theirs) or None in read:
            return False
        node = self.both.graph.node_copy(one, self._mine.__getitem__)
        values = iter(read)
        node.args, node.kwargs = fx.node.map_arg((one.args, dict(one.kwargs)), lambda _: next(values))
        self._mine[one] = self._theirs[other] = node
        if form != other_form:  # but for mode flags, only what has the same form is matched
            self.both.flagged.append(node)
        return True

    def _picked(self, x: fx.Node, y: fx.Node, reader: fx.Node) -> fx.Node | None:
        """What a reader reads: one value, or one for each mode; None where the two are no tensors alike."""
        pair = self._mine[x], self._theirs[y]
        if pair[0] is pair[1] or (pair[0].target == "clone" and pair[0].args == (pair[1],)):
            return pair[0]
        if pair in self._picks:
            return self._picks[pair]
        value = _described(x)
        if value is None or value != _described(y):
            return None
        decided = next((node for node in (x, y) if node in self._alone), reader)
        path = self._add(ByMode(), decided, _PICKS)
        self._picks[pair] = self.both.graph.call_module(path, pair)
        self._picks[pair].meta = {"value": x.meta["value"], STACK: decided.meta.get(STACK) or {}}
        return self._picks[pair]

    def _add(self, module: nn.Module, decided: fx.Node, name: str) -> str:
        """Put a module below the one whose mode a node goes by; its path."""
        owner = _owner(decided, self._owners)
        holder = self._model.get_submodule(owner)
        while hasattr(holder, name) or f"{owner}.{name}".lstrip(".") in self.both.modules:
            name += "_"
        path = f"{owner}.{name}".lstrip(".")
        self.both.modules[path] = module
        return path


def _key(node: fx.Node) -> tuple[Any, ...]:
    """What two nodes have in common that may be one."""
    form = "" if has_mode_flag(node) else _form(node)[0]
    return node.op, node.target, form, _described(node), tuple(map(str, node.meta.get(STACK) or {}))


def _form(node: fx.Node) -> tuple[str, list[fx.Node]]:
    """The arguments as text with a mark for each value that is read, and these values in order."""
    read: list[fx.Node] = []

    def mark(used: fx.Node) -> str:
        read.append(used)
        return "%"

    return repr(fx.node.map_arg((node.args, dict(node.kwargs)), mark)), read


def _described(node: fx.Node) -> tuple[Any, ...] | None:
    """Shape and dtype of a node's value; None for what is no tensor."""
    value = node.meta.get("value")
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else None


def _makes_memory(node: fx.Node, alone: set[fx.Node]) -> bool:
    """Whether the memory of a node's value, if no other node has it too, is no concern of the other mode."""
    return node in alone and node.op.startswith("call")


def _is_free(node: fx.Node, model: nn.Module, shared: frozenset[int]) -> bool:
    """Whether a node can be run in the other mode too, and nobody is the wiser.

    Args:
        node: of one mode alone.
        model: of its graph.
        shared: the storages that others than nodes of that mode alone see.
    """
    if _stores(node):
        return True
    if is_inplace(node, model) and storages_of(values_of(node.args[:1])) & shared:
        return False
    if node.op == "call_module":
        part = model.get_submodule(str(node.target))
        held = any(True for one in part.modules() for _ in (*one._parameters, *one._buffers))
        return not held and type(part).__module__.startswith("torch.nn.")
    return node.op == "get_attr" or (node.op.startswith("call") and node.target not in EFFECTS - {set_item})


def _stores(node: fx.Node) -> bool:
    """Whether a node is what stores in a buffer; `copy_` gives the whole of it other numbers."""
    into = node.args[0] if (node.op, node.target) == ("call_method", "copy_") or node.target is store_ else None
    return isinstance(into, fx.Node) and into.op == "get_attr"


def _owner(node: fx.Node, owners: Collection[str]) -> str:
    """The innermost module around a node whose mode is asked for."""
    paths = [str(path) for path, _ in (node.meta.get(STACK) or {}).values()]
    return next((path for path in reversed(paths) if path in owners), "")
