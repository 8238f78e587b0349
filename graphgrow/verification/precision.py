"""Tensors that a graph makes from sizes alone, made in float64 where that is compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree


def in_double(node: fx.Node, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a node that makes a tensor of the default dtype, with float64 in its place.

    A state that starts with `torch.zeros(n, 8)` would else bring float32 into a comparison in float64.
    """
    return {"dtype": torch.float64, **kwargs} if _makes_floats(node, (args, kwargs)) else kwargs


def _makes_floats(node: fx.Node, arguments: Any) -> bool:
    """Whether a function makes a tensor of the default dtype from sizes and numbers alone (torch.zeros, arange)."""
    value = node.meta.get("value")
    if node.op != "call_function" or getattr(value, "dtype", None) is not torch.get_default_dtype():
        return False
    if any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(arguments)):
        return False
    return getattr(node.target, "__module__", None) in (None, "torch")  # torch's own builtins, which all take a dtype
