"""Whether a model cuts a tensor into as many parts whatever its inputs: then a loop over them decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

_CUTS = {"unbind", "split", "chunk", "tensor_split"}
_COUNTS = ("split_size", "split_size_or_sections", "chunks", "indices", "sections")
_LAYERS = {"linear", "conv1d", "conv2d", "conv3d", "matmul", "bmm", "einsum", "addmm"}


def may_vary(node: fx.Node) -> bool:
    """Whether a node cuts a tensor into parts whose number other inputs may change: its steps, its samples.

    A width that is cut (`qkv.split(d, -1)`) is seen by the layer that puts it out, an axis that the model itself made
    (`view(b, n, 3, h, d).unbind(2)`) by the number in the view.
    """
    name = _name(node)
    if name not in _CUTS or not isinstance(node.args[0], fx.Node):
        return False
    named = (node.kwargs[key] for key in _COUNTS if key in node.kwargs)
    size = node.args[1] if len(node.args) > 1 else next(named, None)
    if name != "unbind" and (isinstance(size, (list, tuple)) or (name != "split" and size == 2)):
        return False
    place = 1 if name == "unbind" else 2
    dim = node.args[place] if len(node.args) > place else node.kwargs.get("dim", 0)
    return isinstance(dim, int) and not _settled(node.args[0], dim % _rank(node.args[0]), name == "unbind")


def _settled(source: fx.Node, axis: int, single: bool) -> bool:
    """Whether an axis of a value is the model's own, as far as its operators say it."""
    while True:
        name = _name(source)
        args: tuple[Any, ...] = source.args
        if source.op == "get_attr":
            return True
        if source.op == "call_module" or name in _LAYERS:
            return not single
        if name == "stack":
            along: Any = args[1] if len(args) > 1 else source.kwargs.get("dim", 0)
            return bool(along % _rank(source) == axis)
        if source.op == "placeholder" or len(args) == 0 or not isinstance(args[0], fx.Node):
            return False
        before = args[0]
        if name in ("view", "reshape"):
            sizes = _in_sequence(args[1:])
            return axis < len(sizes) and isinstance(sizes[axis], int) and sizes[axis] >= 0
        if name == "permute":
            axis = _in_sequence(args[1:])[axis] % _rank(source)
        elif name in ("transpose", "swapaxes"):
            first, second = (int(dim) % _rank(source) for dim in args[1:3])
            axis = {first: second, second: first}.get(axis, axis)
        elif _shape(before) != _shape(source):
            return False
        source = before


def _in_sequence(numbers: tuple[Any, ...]) -> Sequence[Any]:
    """Sizes or axes that are given one by one, or as one sequence."""
    return numbers[0] if numbers and isinstance(numbers[0], (tuple, list)) else numbers


def _name(node: fx.Node) -> str:
    if node.op not in ("call_function", "call_method"):
        return ""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    value = node.meta["value"]
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _rank(node: fx.Node) -> int:
    return len(_shape(node) or (0,))
