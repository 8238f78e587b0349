"""Values laid out anew in the same order, as tokens in one row, and brought back into the shape that they had."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

_SAME_ORDER = ("view", "reshape", torch.reshape, "flatten", torch.flatten, "unflatten", "squeeze", torch.squeeze,
               "unsqueeze", torch.unsqueeze, "contiguous")  # fmt: skip
_TO_SIZES = ("view", "reshape", torch.reshape)


def keeps_order(node: fx.Node) -> bool:
    """Whether a node puts out its first argument's numbers, one after the other as they were, in some shape."""
    if node.op not in ("call_function", "call_method") or node.target not in _SAME_ORDER:
        return False
    first: Any = node.args[0]
    return isinstance(first, fx.Node) and bool(first.meta["value"].dtype == node.meta["value"].dtype)


def has_shape_of(node: fx.Node, example: torch.Tensor, of_shape: Callable[[fx.Node], bool]) -> bool:
    """Whether a node that keeps the order puts out some value's shape, whatever sizes that has in a call.

    It takes its sizes from such a value: the shape as a whole (`y.view(x.shape)`), or one after the other, of which one
    may be a number, since all together are as many.

    Args:
        node: in question.
        example: a value of the shape.
        of_shape: whether a node has it.
    """
    if node.target == "contiguous":
        source = node.args[0]
        return isinstance(source, fx.Node) and of_shape(source)
    if node.target not in _TO_SIZES or node.kwargs:
        return False
    sizes: Any = node.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], fx.Node) and _is_shape(sizes[0], of_shape):
        return True
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    numbers = [axis for axis, size in enumerate(sizes) if not isinstance(size, fx.Node)]
    if len(sizes) != example.dim() or len(numbers) > 1:
        return False
    if any(sizes[axis] not in (-1, example.shape[axis]) for axis in numbers):
        return False
    return all(_is_size(size, axis, example.dim(), of_shape) for axis, size in enumerate(sizes) if axis not in numbers)


def _is_shape(node: fx.Node, of_shape: Callable[[fx.Node], bool]) -> bool:
    """x.shape and x.size() of a value that has the shape."""
    whole = (node.target is getattr and node.args[1] == "shape") or (node.target == "size" and len(node.args) == 1)
    source = node.args[0] if whole else None
    return isinstance(source, fx.Node) and of_shape(source)


def _is_size(node: fx.Node, axis: int, rank: int, of_shape: Callable[[fx.Node], bool]) -> bool:
    """x.shape[axis] and x.size(axis) of one."""
    place: Any = node.args[1] if len(node.args) == 2 else None
    if not isinstance(place, int) or place % rank != axis:
        return False
    source = node.args[0]
    if node.op == "call_method" and node.target == "size":
        return isinstance(source, fx.Node) and of_shape(source)
    return node.target is operator.getitem and isinstance(source, fx.Node) and _is_shape(source, of_shape)
