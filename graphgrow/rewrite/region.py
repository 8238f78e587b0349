"""A module's part of a graph: its nodes, what flows in, what flows out, and copies of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.hooks import drop_hooks
from graphgrow.ir.meta import FIXED, STACK
from graphgrow.network.memory import memory_roots, written
from graphgrow.network.neighbours import parameters_of
from graphgrow.network.overflow import first_overflowing
from graphgrow.rewrite.insert import Insertion, fresh_path


@dataclass(frozen=True)
class Region:
    """The nodes that stand in one module's forward.

    Attributes:
        path: of the module.
        nodes: in graph order.
        result: the one node whose value leaves it.
        inputs: nodes outside that are read inside, in order of their first use.
    """

    path: str
    nodes: tuple[fx.Node, ...]
    result: fx.Node
    inputs: tuple[fx.Node, ...]

    @classmethod
    def of(cls, graph: fx.Graph, path: str, standing: Sequence[fx.Node] | None = None) -> Region:
        """The region of a module path.

        Args:
            graph: the graph.
            path: of the module.
            standing: the nodes that stand in its forward, where they are known; else the graph is searched for them.

        Raises:
            Declined: if no node stands there, several values leave it, or it cannot be run once more: a leaf is not
                known inside, it writes into memory that is not its own, or it might overflow.
        """
        nodes = tuple(node for node in graph.nodes if _within(node, path)) if standing is None else tuple(standing)
        nodes = _with_own_parameters(nodes, path)
        if not nodes:
            raise Declined(f"no operator stands in `{path}`; kind=copy wants the path of a module that is called")
        leaving = [node for node in nodes if any(not _within(user, path) for user in node.users)]
        if len(leaving) != 1:
            raise Declined(f"{len(leaving)} values leave `{path}`; a copy can stand behind one that leaves alone")
        result, module = leaving[0], graph.owning_module
        assert module is not None
        end = nodes.index(result) + 1
        inputs = dict.fromkeys(used for node in nodes[:end] for used in node.all_input_nodes if not _within(used, path))
        region = cls(path, nodes[:end], result, tuple(inputs))
        region._refuse_what_cannot_be_repeated(module)
        return region

    def _refuse_what_cannot_be_repeated(self, module: nn.Module) -> None:
        if not isinstance(self.result.meta.get("value"), torch.Tensor):
            raise Declined(f"what leaves `{self.path}` is no single tensor")
        fixed = next((node for node in self.nodes if FIXED in node.meta), None)
        if fixed is not None:
            raise Declined(f"`{fixed.target}` is a leaf whose inside is not known")
        streams, overwritten = self.streams(), self.written_inputs(module)
        if overwritten and not streams:
            raise Declined(f"`{self.path}` writes into `{overwritten[0].name}`, which is not its own")
        wild = first_overflowing(self.nodes, streams)
        if wild is not None:
            raise Declined(
                f"`{wild.name}` may overflow on what `{self.path}` puts out, and zero times infinity is not zero"
            )

    def written_inputs(self, module: nn.Module) -> list[fx.Node]:
        """The nodes outside, and tensors of other modules, into whose memory the region writes."""
        roots = memory_roots(self.nodes, module)
        targets = [target for node in self.nodes for target in written(node, module)]
        memory = {root for target in targets for root in roots.get(target, {target})}
        own = {node for node in self.nodes if node.op != "get_attr" or _inside(str(node.target), self.path)}
        return [node for node in dict.fromkeys((*self.inputs, *self.nodes)) if node in memory - own]

    def streams(self) -> list[fx.Node]:
        """The inputs that have the shape and dtype of the result, for which it might stand once more.

        One that is overwritten is the only one: what it holds is the copy's own, what others hold is not.
        """
        module, wanted = self.result.graph.owning_module, self.result.meta["value"]
        assert module is not None
        overwritten = set(self.written_inputs(module))
        return [n for n in self.inputs if _alike(n.meta.get("value"), wanted) and overwritten <= {n}]


def copy_region(
    insertion: Insertion, region: Region, stream: fx.Node, arriving: fx.Node | None = None, path: str = ""
) -> fx.Node:
    """Put a copy of a region behind its result; its modules and parameters are copies too, with the same values.

    What is tied within the region is tied within the copy; a parameter that nodes outside hold too stays theirs.
    Buffers are the copy's own, those of batch norms that stand elsewhere too: no statistics are updated twice.

    Args:
        insertion: at the region's result.
        region: of the insertion's copy of the graph.
        stream: the input of the region that the copy reads another value for.
        arriving: that value; by default the result.
        path: where its modules go; by default the path of the insertion.

    Returns:
        The copy of the result.
    """
    path = path or insertion.path
    copies = _Copies(insertion, region, path)
    arriving = arriving or region.result
    if stream in region.written_inputs(insertion.editor.module):
        arriving = insertion.add("call_method", "clone", (arriving,))
    values: dict[fx.Node, fx.Node] = {node: node for node in region.inputs}
    values[stream] = arriving
    targets = {node: copies.module(str(node.target)) for node in region.nodes if node.op == "call_module"}
    targets |= {node: copies.tensor(str(node.target)) for node in region.nodes if node.op == "get_attr"}
    for node in region.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        values[node] = insertion.add(node.op, targets.get(node, node.target), args, kwargs, path)
        _restack(values[node], node, region.path, path)
    return values[region.result]


class _Copies:
    """Copies of the modules and tensors of a region, under the path of an insertion."""

    def __init__(self, insertion: Insertion, region: Region, path: str) -> None:
        self._editor, self._path, self._new = insertion.editor, region.path, path
        root = self._editor.module
        mine = set(region.nodes)
        outside = (node for node in root.graph.nodes if node not in mine)
        self._memo: dict[int, Any] = {id(p): p for node in outside for p in parameters_of(root, node)}
        self._shared: dict[str, str] = {}  # by path of a module of others, its copy

    def module(self, target: str) -> str:
        """The path of a module for the copy to call: a copy, or a module of others that keeps no statistics."""
        root = self._editor.module
        part = root.get_submodule(target)
        if not _inside(target, self._path) and next(part.buffers(), None) is None:
            return target
        new = self._new + target.removeprefix(self._path) if _inside(target, self._path) else self._beside(target)
        if not _present(root, new):
            root.add_submodule(new, copy.deepcopy(part, self._memo))
            for inner in root.get_submodule(new).modules():  # what they note is of the original alone
                drop_hooks(inner)
        return new

    def _beside(self, target: str) -> str:
        """Where the copy of a module of others stands."""
        if target not in self._shared:
            self._shared[target] = fresh_path(self._editor.module, f"{self._new}.{target.replace('.', '_')}", "shared")
        return self._shared[target]

    def tensor(self, target: str) -> str:
        """The name of a tensor for the copy to fetch. Modules are copied first, so that a module's own is its own."""
        if not _inside(target, self._path):
            return target
        new = self._new + target.removeprefix(self._path)
        owner, _, field = new.rpartition(".")
        root = self._editor.module
        if not _present(root, owner):
            root.add_submodule(owner, nn.Module())
        holder = root.get_submodule(owner)
        if hasattr(holder, field):
            return new
        tensor = copy.deepcopy(self._editor.tensor(target), self._memo)
        if isinstance(tensor, nn.Parameter):
            holder.register_parameter(field, tensor)
        else:
            holder.register_buffer(field, tensor)
        return new


def _within(node: fx.Node, path: str) -> bool:
    """Whether a node stands in the module's forward; so does a parameter of its own that is fetched for it alone."""
    if any(str(scope) == path for scope, _ in (node.meta.get(STACK) or {}).values()):
        return True
    fetched = node.op == "get_attr" and STACK not in node.meta and _inside(str(node.target), path)
    return fetched and all(_within(user, path) for user in node.users)


def _with_own_parameters(nodes: tuple[fx.Node, ...], path: str) -> tuple[fx.Node, ...]:
    """The nodes, and the parameters that are fetched for them alone, in graph order."""
    own = {used for node in nodes for used in node.all_input_nodes if used.op == "get_attr" and _within(used, path)}
    if own <= set(nodes):
        return nodes
    wanted = {*nodes, *own}
    return tuple(node for node in nodes[0].graph.nodes if node in wanted)


def _inside(target: str, path: str) -> bool:
    return f"{target}.".startswith(f"{path}.")


def _alike(value: Any, wanted: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == wanted.shape and value.dtype == wanted.dtype


def _restack(node: fx.Node, origin: fx.Node, path: str, new_path: str) -> None:
    """The modules around a copied node: those around the site, the copy, and what stood inside of the original."""
    inner = {
        key: (f"{new_path}{str(scope).removeprefix(path)}", kind)
        for key, (scope, kind) in (origin.meta.get(STACK) or {}).items()
        if str(scope) == path or _inside(str(scope), path)
    }
    outer = {key: item for key, item in node.meta[STACK].items() if item[0] != new_path}
    node.meta[STACK] = outer | {item[0]: item for item in inner.values()}


def _present(root: nn.Module, path: str) -> bool:
    try:
        root.get_submodule(path)
    except AttributeError:  # torch's word for a path that does not exist
        return False
    return True
