"""Views of tensors: which nodes make them, and how a tensor is made of what a view of it holds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

Asked = Mapping[fx.Node, tuple[tuple[Any, ...], dict[str, Any]]]
"""What nodes were called with, before any of their arguments was exchanged."""

_VIEWS = {
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "chunk", "split",
    "split_with_sizes", "tensor_split", "unbind", "select", "narrow", "unfold", "diagonal", "t", "contiguous", "detach",
    "getitem", "getattr", "to", "cpu", "type", "float", "double", "half", "bfloat16", "type_as",
}  # fmt: skip
_VIEW_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten)
_RESHAPES = {"view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze"}
_NOT_MOVED = {"getattr", "getitem", "select", "narrow", "unfold", "diagonal"}


def is_view(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node may show the memory of its first argument in another form.

    Args:
        node: of a graph.
        root: where its modules are.
    """
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))) in _VIEW_MODULES
    return node.op in ("call_function", "call_method") and name_of(node) in _VIEWS


def name_of(node: fx.Node) -> str:
    """The name of a node's operator, as method and function alike."""
    return str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", node.target))


def unpacks(node: fx.Node) -> bool:
    """Whether a node takes an item of a container."""
    container = node.args[0] if node.args else None
    if node.target is not operator.getitem or not isinstance(container, fx.Node):
        return False
    return not isinstance(container.meta.get("value"), torch.Tensor)


def index_in(view: fx.Node, source: fx.Node, asked: Asked) -> Any:
    """The index at which a view lies in its source; None where it is no such part, or where that cannot be told.

    Args:
        view: a node that takes a part of a tensor.
        source: the tensor.
        asked: what the view, and the container that it may come from, were called with.
    """
    args, kwargs = asked[view]
    name, sizes = name_of(view), source.meta["value"].shape
    if name == "getitem":
        return _of_a_part(view, source, asked) if unpacks(view) else args[1]
    if name == "select":
        dim, position = _arguments(args, kwargs, ("dim", 0), ("index", 0))
        return (*[slice(None)] * (dim % len(sizes)), position)
    if name == "narrow":
        dim, start, length = _arguments(args, kwargs, ("dim", 0), ("start", 0), ("length", 0))
        if isinstance(start, int) and isinstance(length, int):
            start = start % sizes[dim]
            return (*[slice(None)] * (dim % len(sizes)), slice(start, start + length))
    return None


def _of_a_part(item: fx.Node, source: fx.Node, asked: Asked) -> tuple[Any, ...] | None:
    """The index of one part of a chunk, split or unbind."""
    container, number = asked[item][0]
    wanted = (("dim", 0),) if name_of(container) == "unbind" else (("sizes", 0), ("dim", 0))
    dim = _arguments(*asked[container], *wanted)[-1] % source.meta["value"].dim()
    if not isinstance(number, int) or dim == 0:
        return None  # on axis 0 the sizes of the parts may depend on the batch
    before: Any = [slice(None)] * dim
    number = number % len(container.meta["value"])
    if name_of(container) == "unbind":
        return (*before, number)
    sizes = [part.shape[dim] for part in container.meta["value"]]
    start = sum(sizes[:number])
    return (*before, slice(start, start + sizes[number]))


def is_reshaped(view: fx.Node, source: fx.Node) -> bool:
    """Whether a view holds all entries of its source, in the same order."""
    return name_of(view) in _RESHAPES and view.meta["value"].numel() == source.meta["value"].numel()


def order_back(view: fx.Node, source: fx.Node) -> list[int] | None:
    """The order of axes that takes a permuted view back to its source; None where it is no permutation."""
    sizes = source.meta["value"].shape
    if sorted(sizes) != sorted(view.meta["value"].shape) or name_of(view) in _NOT_MOVED:
        return None
    dims = len(sizes)
    labels = torch.empty([2 + i for i in range(dims)], device="meta")  # sizes that tell the axes apart
    args, kwargs = view.args[1:], view.kwargs  # numbers, unless it is refused here
    if any(isinstance(leaf, fx.Node) for leaf in pytree.tree_leaves((args, kwargs))):
        return None
    try:
        moved = getattr(labels, str(view.target))(*args, **kwargs) if view.op == "call_method" else None
        if view.op == "call_function":
            function: Callable[..., torch.Tensor] = view.target  # type: ignore[assignment]
            moved = function(labels, *args, **kwargs)
    except (RuntimeError, TypeError, IndexError):
        return None
    found = [size - 2 for size in moved.shape] if isinstance(moved, torch.Tensor) else []
    return [found.index(i) for i in range(dims)] if sorted(found) == list(range(dims)) else None


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any], *wanted: tuple[str, Any]) -> list[Any]:
    """Arguments behind the first one, by position or by name."""
    return [args[i] if len(args) > i else kwargs.get(name, default) for i, (name, default) in enumerate(wanted, 1)]
