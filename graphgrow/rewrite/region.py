"""A module's part of a graph: its nodes, what flows in, what flows out, and copies of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.meta import FIXED
from graphgrow.rewrite.insert import Insertion
from graphgrow.rewrite.sites import STACK


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
    def of(cls, graph: fx.Graph, path: str) -> Region:
        """The region of a module path.

        Raises:
            Declined: if no node stands there, several values leave it, or one of its leaves cannot be run anew.
        """
        nodes = tuple(node for node in graph.nodes if _within(node, path))
        leaving = [node for node in nodes if any(not _within(user, path) for user in node.users)]
        if len(leaving) != 1:
            raise Declined(f"{len(leaving)} values leave `{path}`; a copy can stand behind one that leaves alone")
        fixed = next((node for node in nodes if FIXED in node.meta), None)
        if fixed is not None:
            raise Declined(f"`{fixed.target}` is a leaf whose inside is not known")
        inputs = dict.fromkeys(used for node in nodes for used in node.all_input_nodes if not _within(used, path))
        return cls(path, nodes, leaving[0], tuple(inputs))

    def streams(self) -> list[fx.Node]:
        """The inputs that have the shape and dtype of the result, for which it might stand once more."""
        wanted = self.result.meta["value"]
        return [node for node in self.inputs if _alike(node.meta.get("value"), wanted)]


@dataclass(frozen=True)
class RegionCopy:
    """A copy of a region behind itself, reading the region's result in the place of one of its inputs.

    Attributes:
        nodes: by node of the region, its copy.
        stream: the node that is read in the place of that input: the region's result.
        result: the copy of the result.
    """

    nodes: Mapping[fx.Node, fx.Node]
    stream: fx.Node
    result: fx.Node


def copy_region(insertion: Insertion, region: Region, stream: fx.Node) -> RegionCopy:
    """Put a copy of a region behind its result; its modules and parameters are copies too, with the same values.

    Args:
        insertion: at the region's result.
        region: of the insertion's copy of the graph.
        stream: the input of the region that the copy reads the result for.
    """
    module, memo = insertion.editor.module, {}  # type: ignore[var-annotated]  # deepcopy's memo
    _keep_outside(module, region, memo)
    values: dict[fx.Node, fx.Node] = {node: node for node in region.inputs}
    values[stream] = region.result
    for node in region.nodes:
        target: Any = node.target
        if node.op == "call_module" and _inside(str(target), region.path):
            target = _copied_module(insertion, str(target), region.path, memo)
        elif node.op == "get_attr" and _inside(str(target), region.path):
            target = _copied_tensor(insertion, str(target), region.path, memo)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        values[node] = insertion.add(node.op, target, args, kwargs, insertion.path)
        _restack(values[node], node, region.path, insertion.path)
    return RegionCopy({node: values[node] for node in region.nodes}, region.result, values[region.result])


def _within(node: fx.Node, path: str) -> bool:
    return any(str(scope) == path for scope, _ in (node.meta.get(STACK) or {}).values())


def _inside(target: str, path: str) -> bool:
    return target.startswith(f"{path}.")


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


def _keep_outside(module: nn.Module, region: Region, memo: dict[int, Any]) -> None:
    """Parameters that are tied to one outside of the region stay tied to it."""
    outside = {id(t) for name, t in _tensors(module) if not _inside(name, region.path)}
    memo.update({id(t): t for name, t in _tensors(module) if id(t) in outside})


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def _copied_module(insertion: Insertion, target: str, path: str, memo: dict[int, Any]) -> str:
    new = insertion.path + target.removeprefix(path)
    if not _present(insertion.editor.module, new):
        insertion.editor.module.add_submodule(new, copy.deepcopy(insertion.editor.module.get_submodule(target), memo))
    return new


def _copied_tensor(insertion: Insertion, target: str, path: str, memo: dict[int, Any]) -> str:
    new = insertion.path + target.removeprefix(path)
    owner, _, field = new.rpartition(".")
    root = insertion.editor.module
    if not _present(root, owner):
        root.add_submodule(owner, nn.Module())
    holder = root.get_submodule(owner)
    if hasattr(holder, field):
        return new
    tensor = copy.deepcopy(insertion.editor.tensor(target), memo)
    if isinstance(tensor, nn.Parameter):
        holder.register_parameter(field, tensor)
    else:
        holder.register_buffer(field, tensor)
    return new


def _present(root: nn.Module, path: str) -> bool:
    try:
        root.get_submodule(path)
    except AttributeError:  # torch's word for a path that does not exist
        return False
    return True
