"""In-place operators: every later reader of overwritten memory is made to read what was written.

A graph whose edges are values cannot show that `x.add_(1)` changes what a later reader of `x`, or of a view of `x`,
sees. Threading makes the edges tell it, whatever name or view was written: the graph is one of values alone
afterwards, though operators still write where the model's own do. Which tensors share memory, and which were written,
is not guessed from names: the example values on the meta device share storages and count their writes as any tensors.

What the forward writes into a buffer goes into a clone of it, and a single `copy_` behind the last of these writes
stores that in the buffer: the one effect that a graph has on it is an operator of its own, behind a chain of values.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.graphs.severed import detached, severed, unseen
from graphgrow.capture.graphs.views import index_in, is_reshaped, is_view, name_of, order_back, unpacks
from graphgrow.capture.graphs.writes import PLAIN, Write, is_inplace, storages_of, watch
from graphgrow.errors import CaptureError
from graphgrow.ir.meta import OVERWRITTEN, MetaRunner
from graphgrow.layers import set_item, store_

_ADVICE = "write it without in-place operators, or mark the submodule as a leaf"


def thread_inplace(
    graph: fx.Graph, root: nn.Module, writes: Mapping[fx.Node, Write] | None = None, made: Collection[str] = ()
) -> None:
    """Redirect the readers of overwritten tensors, and of all that shares memory with them.

    What the model made itself, and nobody else sees, is not overwritten any more where a plain operator gives the same
    tensor: `x += y` becomes `x + y`.

    Args:
        graph: of a trace whose nodes have their example values.
        root: the model.
        writes: what the trace saw written; None to find it out, from placeholders that have their example values.
        made: the names of the constants that the forward makes anew in each call.

    Raises:
        CaptureError: if a view cannot be told after what it looks at was overwritten; names the line that writes.
    """
    if writes is None:
        writes = watch(graph, root) if any(is_inplace(node, root) for node in graph.nodes) else {}
    if writes:
        _Threader(graph, root, writes, made).run()


@dataclass
class _Memory:
    """One storage that is written.

    Attributes:
        root: the node that made it, or fetches it.
        outside: whether somebody beside this call of the graph can see it: an input, a parameter, a buffer.
        left: how many of its writes are still to come.
        stored: whether it is a clone of a buffer's, and is stored in the buffer behind the last write.
        version: how often it was written so far.
        last: the node through which it was written last.
        line: where in the user's code that was.
        severed: whether it was written under a name without gradient, while it has one under others.
        past: whether it was written under names without gradient alone.
        unseen: whether these were `.data` alone, of whose writes autograd is not told.
        at: by node that shares the storage, the version when it was last told, and the node that holds its value then.
    """

    root: fx.Node
    outside: bool
    left: int
    stored: bool = False
    version: int = 0
    last: fx.Node | None = None
    line: str = ""
    severed: bool = False
    past: bool = True
    unseen: bool = True
    at: dict[fx.Node, tuple[int, fx.Node]] = field(default_factory=dict)


class _Threader:
    def __init__(
        self, graph: fx.Graph, root: nn.Module, writes: Mapping[fx.Node, Write], made: Collection[str]
    ) -> None:
        self._graph, self._root, self._writes, self._made = graph, root, writes, made
        self._memories: dict[int, _Memory] = {}
        self._same: dict[fx.Node, fx.Node] = {}  # a node that is another one's tensor: what `x.add_()` returns is x
        self._asked: dict[fx.Node, tuple[tuple[Any, ...], dict[str, Any]]] = {}  # what a node was first called with
        self._reader = next(iter(graph.nodes))
        self._behind: fx.Node | None = None  # what the reader reads as it was before the last write
        targets = (write.target.meta["value"] for write in writes.values())
        self._written = Counter(storage for value in targets for storage in storages_of(value))

    def run(self) -> None:
        """Walk the nodes in order; each reads what its arguments hold by then."""
        for node in list(self._graph.nodes):
            self._reader = node
            self._asked[node] = (node.args, dict(node.kwargs))
            self._behind = self._stored_back(node)
            if node in self._writes:
                self._spare_buffer(node, self._writes[node])
            arguments = fx.node.map_arg((node.args, dict(node.kwargs)), self._now)
            node.args, node.kwargs = arguments
            if node in self._writes:
                self._overwrite(node, self._writes[node])
            else:
                self._remember(node)
        self._give_own_memory()

    def _give_own_memory(self) -> None:
        """Give what is done to clones of buffers example values that share no memory with the buffers any more."""
        of_buffers = frozenset(storage for storage, memory in self._memories.items() if memory.stored)
        runner = MetaRunner(self._root)
        for node in self._graph.nodes if of_buffers else ():
            if node.op.startswith("call") and storages_of(node.meta.get("value")) & of_buffers:
                node.meta["value"] = runner.run_node(node)

    # -- what is new with each node --------------------------------------------------------------------------

    def _remember(self, node: fx.Node) -> None:
        """Note the memory of a node that writes nothing: its own, or another's that it looks at."""
        for storage in self._storages(node):
            memory = self._memories.get(storage)
            if memory is not None:
                twin = not self._looks_at(node, storage)
                if twin and _geometry(node) == _geometry(memory.root):
                    self._same[node] = memory.root
                    memory.at[node] = memory.at[memory.root]
                else:  # a view of what its arguments hold by now; what is fetched is as it was at first
                    memory.at[node] = (0 if twin else memory.version, node)
            elif isinstance(node.meta["value"], torch.Tensor):  # of a tuple, the items are the roots
                outside = node.op in ("placeholder", "get_attr")
                memory = self._memories[storage] = _Memory(node, outside, self._written[storage])
                memory.at[node] = (0, self._made_anew(node, memory))

    def _made_anew(self, node: fx.Node, memory: _Memory) -> fx.Node:
        """The node itself; of a constant that the forward makes in each call, a clone, as it is written into."""
        if node.op != "get_attr" or str(node.target) not in self._made:
            return node
        memory.outside = False
        with self._graph.inserting_after(node):
            clone = self._graph.call_method("clone", (node,))
        clone.meta = dict(node.meta)
        return clone

    def _spare_buffer(self, node: fx.Node, write: Write) -> None:
        """Let the first write into a buffer go into a clone, unless it is the only one, and of the buffer itself."""
        memory = self._memory_of(write.target)
        whole = memory.left == 1 and write.target is memory.root and _replaces(node, memory.root)
        if not memory.outside or memory.root.op != "get_attr" or whole:
            return
        clone = self._insert("call_method", "clone", (memory.root,), {}, like=node, value=memory.root.meta["value"])
        memory.outside, memory.stored, memory.line = False, True, write.line
        memory.version, memory.last = memory.version + 1, memory.root
        memory.at[memory.root] = (memory.version, clone)

    def _overwrite(self, node: fx.Node, write: Write) -> None:
        target, memory = self._same.get(write.target, write.target), self._memory_of(write.target)
        memory.left -= 1
        memory.version, memory.last, memory.line = memory.version + 1, target, write.line
        memory.severed = memory.severed or severed(write.target, self._root)
        memory.past, memory.unseen = memory.past and detached(write.target), memory.unseen and unseen(write.target)
        memory.at[target] = memory.at[node] = (memory.version, node)
        if node is not target:
            self._same[node] = target
        if not memory.outside:
            _make_plain(node)
        if memory.root.op == "get_attr" and (memory.outside or memory.stored):
            owner, _, name = str(memory.root.target).rpartition(".")
            if name in self._root.get_submodule(owner)._parameters:
                raise CaptureError(f"{write.line} overwrites the parameter `{memory.root.target}`; do it elsewhere")
            memory.root.meta[OVERWRITTEN] = True
        if memory.stored and not memory.left:
            self._reader = node.next
            self._store(memory, self._now(memory.root), node)

    def _store(self, memory: _Memory, value: fx.Node, last: fx.Node) -> None:
        """Write what became of a buffer's clone into the buffer, as autograd is told of it in the forward."""
        held = memory.root.meta["value"]
        if memory.unseen:
            self._insert("call_function", store_, (memory.root, value), {}, like=last, value=held)
            return
        self._insert("call_method", "copy_", (memory.root, value), {}, like=last, value=held)

    def _memory_of(self, target: fx.Node) -> _Memory:
        (storage,) = storages_of(target.meta["value"])
        return self._memories[storage]

    def _stored_back(self, node: fx.Node) -> fx.Node | None:
        """Of `x[i] = y`, where y is what became of x[i] (so Python says `x[i] += 1`): x, which may stay behind."""
        if node.target is not set_item or not isinstance(node.args[2], fx.Node):
            return None
        container, index, value = node.args[0], node.args[1], node.args[2]
        assert isinstance(container, fx.Node)
        for storage in self._storages(container):
            last = self._memories[storage].last
            if last is not None and last is self._same.get(value) and last.target is operator.getitem:
                return container if self._asked[last][0] == (container, index) else None
        return None

    # -- what a node holds by now ----------------------------------------------------------------------------

    def _storages(self, node: Any) -> frozenset[int]:
        return storages_of(node.meta.get("value")) & self._written.keys()

    def _now(self, node: fx.Node) -> fx.Node:
        """The node that holds by now what another held when it was made."""
        now = node
        for storage in self._storages(node):
            memory = self._memories.get(storage)
            if memory is None or (node not in memory.at and unpacks(self._reader)):
                continue
            if memory.severed and not detached(node) and _passes_gradient(self._reader):
                raise CaptureError(
                    f"{memory.line or 'an operator'} overwrites a tensor past its gradient (under torch.no_grad(), or "
                    f"through .detach() or .data), which `{self._reader.name}` then reads with its gradient: a graph "
                    "of values would lose that; let the operator return a new tensor"
                )
            version, holder = memory.at.get(node, (0, node))
            if version == memory.version or node is self._behind:
                now = holder
            else:
                now = self._brought_up(node, memory)
                memory.at[node] = (memory.version, now)
        return now

    def _brought_up(self, node: fx.Node, memory: _Memory) -> fx.Node:
        if node in self._same:
            return self._now(self._same[node])
        if node is memory.root:
            return self._put_back(memory)
        if not is_view(node, self._root):
            raise self._refusal(node, memory)
        arguments = fx.node.map_arg(self._asked[node], self._now)
        return self._insert(node.op, node.target, *arguments, like=node)

    def _put_back(self, memory: _Memory) -> fx.Node:
        """What the root of a memory holds after one of its views was written."""
        assert memory.last is not None
        node, value = memory.last, memory.at[memory.last][1]
        while node is not memory.root:
            source = self._looked_at(node, memory)
            if _geometry(node) != _geometry(source):
                value = self._put_into(source, node, value, memory)
            node = source
            memory.at[node] = (memory.version, value)
        if memory.past and not detached(memory.root):  # what was written has a gradient under the name alone that wrote
            value = self._insert("call_method", "detach", (value,), {}, like=value, value=value.meta["value"].detach())
            memory.at[memory.root] = (memory.version, value)
        return value

    def _looked_at(self, node: fx.Node, memory: _Memory) -> fx.Node:
        """The node that a view is a view of."""
        sources = self._looks_at(node, *storages_of(memory.root.meta["value"]))
        if len(sources) != 1 or not is_view(node, self._root):
            raise self._refusal(node, memory)
        source = self._same.get(sources[0], sources[0])
        if isinstance(source.meta["value"], torch.Tensor):
            return source
        return self._looked_at(source, memory)  # the container of parts that the node takes one of

    def _put_into(self, source: fx.Node, view: fx.Node, value: fx.Node, memory: _Memory) -> fx.Node:
        """What a tensor holds when a view of it holds `value`."""
        index = index_in(view, source, self._asked)
        if index is not None:
            return self._insert("call_function", set_item, (memory.at[source][1], index, value), {}, like=source)
        shape = source.meta["value"].shape
        if is_reshaped(view, source):
            sizes = self._insert("call_function", getattr, (source, "shape"), {}, like=source, value=shape)
            parts = [
                self._insert("call_function", operator.getitem, (sizes, i), {}, like=source, value=size)
                for i, size in enumerate(shape)
            ]
            return self._insert("call_method", "reshape", (value, *parts), {}, like=source)
        order = order_back(view, source)
        if order is None:
            raise self._refusal(view, memory)
        return self._insert("call_method", "permute", (value, *order), {}, like=source)

    def _insert(self, op: str, target: Any, args: Any, kwargs: Any, like: fx.Node, value: Any = None) -> fx.Node:
        with self._graph.inserting_before(self._reader):
            node = self._graph.create_node(op, target, tuple(args), dict(kwargs))
        node.meta = dict(like.meta)
        if value is not None:
            node.meta["value"] = value
        return node

    def _looks_at(self, node: fx.Node, *storages: int) -> list[fx.Node]:
        """The arguments that a node was made with that hold one of these storages."""
        used = [leaf for leaf in pytree.tree_leaves(self._asked[node]) if isinstance(leaf, fx.Node)]
        return [leaf for leaf in dict.fromkeys(used) if storages_of(leaf.meta.get("value")) & {*storages}]

    def _refusal(self, node: fx.Node, memory: _Memory) -> CaptureError:
        return CaptureError(
            f"{memory.line or 'an operator'} overwrites a tensor in place whose memory `{node.name}` "
            f"({name_of(node)}) shares, and what that holds afterwards cannot be told; {_ADVICE}"
        )


def _replaces(node: fx.Node, root: fx.Node) -> bool:
    """Whether a node writes all of a tensor anew, by `copy_` from another one that is like it."""
    source = node.args[1] if node.op == "call_method" and node.target == "copy_" and len(node.args) == 2 else None
    value, whole = source.meta.get("value") if isinstance(source, fx.Node) else None, root.meta["value"]
    alike = isinstance(value, torch.Tensor) and (value.shape, value.dtype) == (whole.shape, whole.dtype)
    return alike and _geometry(node) == _geometry(root)


def _passes_gradient(node: fx.Node) -> bool:
    """Whether gradients come through a node: not where it reads sizes, or detaches."""
    holds = node.op == "output" or bool(storages_of(node.meta.get("value")))
    return holds and not (node.op == "call_method" and node.target == "detach")


def _geometry(node: fx.Node) -> tuple[Any, ...] | None:
    tensor = node.meta["value"]
    if not isinstance(tensor, torch.Tensor):
        return None
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _make_plain(node: fx.Node) -> None:
    """Let a node return a new tensor instead of overwriting one, where that has the same shape and dtype."""
    name = str(node.target)
    target = PLAIN.get(getattr(operator, name, None) if node.op == "call_method" else node.target)
    kwargs = dict(node.kwargs)
    if target is None and "out" in kwargs:
        target = node.target
        del kwargs["out"]
    if target is None:
        return
    values = fx.node.map_arg((node.args, kwargs), lambda used: used.meta["value"])
    try:
        found = target(*values[0], **values[1])
    except (RuntimeError, TypeError):
        return
    wanted = node.meta["value"]
    if isinstance(found, torch.Tensor) and (found.shape, found.dtype) == (wanted.shape, wanted.dtype):
        node.op, node.target, node.kwargs = "call_function", target, kwargs
        node._rename(str(getattr(target, "__name__", target)).rstrip("_"))
