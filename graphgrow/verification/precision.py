"""Operators whose own code names a dtype narrower than float64, run in float64 all the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

_NARROW = (torch.float32, torch.float16, torch.bfloat16)


def in_double(node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments of a node with float64 in place of narrower dtypes.

    A norm that computes in float32 (`x.to(torch.float32)`), or a state that starts with `torch.zeros(n, 8)`, would else
    bring float32 into a comparison in float64.
    """
    args, kwargs = pytree.tree_map(_widened, (args, kwargs))
    if _makes_floats(node):
        kwargs = {"dtype": torch.float64, **kwargs}
    return args, kwargs


def _widened(leaf: Any) -> Any:
    return torch.float64 if isinstance(leaf, torch.dtype) and leaf in _NARROW else leaf


def _makes_floats(node: fx.Node) -> bool:
    """Whether a function makes a tensor of the default dtype from sizes and numbers alone (torch.zeros, arange)."""
    value = node.meta.get("value")
    if node.op != "call_function" or getattr(value, "dtype", None) is not torch.get_default_dtype():
        return False
    inputs = [used.meta.get("value") for used in node.all_input_nodes]
    if any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(inputs)):
        return False
    return getattr(node.target, "__module__", None) in (None, "torch")  # torch's own builtins, which all take a dtype
