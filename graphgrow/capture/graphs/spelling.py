"""Calls of torch's operators in one spelling, the one that rules and passes know.

torch takes NumPy's names beside its own (`x.mean(axis=1, keepdims=True)`), and its leading arguments by name as well as
by position (`x.permute(dims=(0, 2, 1))`); many of its operators have several names (`torch.multiply`), and are
functions and methods alike. What such a call means does not depend on how it is written.
"""

from __future__ import annotations

import inspect
import operator
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from graphgrow.ops.registry import registered, rule_of

_NUMPY = {"axis": "dim", "keepdims": "keepdim"}  # torch's own aliases, in all of its compiled operators
_LEADING: Mapping[str, tuple[str, ...]] = {
    "reshape": ("input", "shape"),
    "view": ("input", "size"),
    "expand": ("input", "size"),
    "broadcast_to": ("input", "size"),
    "repeat": ("input", "repeats"),
    "tile": ("input", "dims"),
    "permute": ("input", "dims"),
    "flip": ("input", "dims"),
    "transpose": ("input", "dim0", "dim1"),
    "swapaxes": ("input", "axis0", "axis1"),
    "swapdims": ("input", "dim0", "dim1"),
    "split": ("input", "split_size", "dim"),
    "narrow": ("input", "dim", "start", "length"),
    "mm": ("input", "mat2"),
    "bmm": ("input", "mat2"),
    "mv": ("input", "vec"),
    "dot": ("input", "tensor"),
    "outer": ("input", "vec2"),
    "addmm": ("input", "mat1", "mat2"),
    "baddbmm": ("input", "batch1", "batch2"),
    "addmv": ("input", "mat", "vec"),
}
_OWNERS: Mapping[str, Any] = {"special_": torch.special, "linalg_": torch.linalg}
_SYNONYMS: Mapping[str, str] = {
    "absolute": "abs", "negative": "neg", "subtract": "sub", "multiply": "mul", "divide": "div", "fix": "trunc",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne",
    "split_with_sizes": "split", "row_stack": "vstack", "arctan2": "atan2", "arccosh": "acosh",
    "unsafe_chunk": "chunk", "unsafe_split": "split", "unsafe_split_with_sizes": "split",
    "expit": "sigmoid", "gammaln": "lgamma", "psi": "digamma", "multigammaln": "mvlgamma",
    "empty": "zeros", "empty_like": "zeros_like", "new_empty": "new_zeros",  # no value of memory's is to be relied on
}  # fmt: skip
_OTHERWISE: Mapping[str, Callable[..., Any] | str] = {
    "selu": F.selu, "celu": F.celu, "threshold": F.threshold, "detach": "detach", "broadcast_to": "expand",
    "layer_norm": F.layer_norm, "group_norm": F.group_norm, "rms_norm": F.rms_norm,
    "bitwise_and": operator.and_, "bitwise_or": operator.or_, "bitwise_xor": operator.xor,
    "bitwise_not": operator.invert, "rrelu": F.rrelu,
    "pdist": F.pdist, "alpha_dropout": F.alpha_dropout, "feature_alpha_dropout": F.feature_alpha_dropout,
}  # fmt: skip
"""By name of a compiled function or of a method, what takes the same arguments: a function, or the name of a method."""


def spell(graph: fx.Graph) -> None:
    """Write calls of torch's own operators alike, in place; one that has a rule keeps its name.

    Args:
        graph: whose nodes have example values.
    """
    for node in graph.nodes:
        if node.op != "call_method" and not _compiled(node):
            continue
        name = str(node.target) if node.op == "call_method" else node.target.__name__
        named = {_NUMPY.get(key, key): value for key, value in node.kwargs.items()}
        args = list(node.args)
        for key in _LEADING.get(name, ())[len(args) :]:
            if key not in named:
                break
            args.append(named.pop(key))
        if len(args) != len(node.args) or named.keys() != node.kwargs.keys():
            node.args, node.kwargs = tuple(args), named
        if rule_of(node, None) is None and _of_torch(node, name):
            _rename(node, name)


def _of_torch(node: fx.Node, name: str) -> bool:
    """Whether a node calls torch's own function of that name (not math's), or a method of a tensor."""
    if node.op == "call_function":
        owner = next((owner for prefix, owner in _OWNERS.items() if name.startswith(prefix)), torch)
        return node.target is getattr(owner, _plainly(name), None)
    first = node.args[0] if node.args else None
    return isinstance(first, fx.Node) and isinstance(first.meta.get("value"), torch.Tensor)


def _plainly(name: str) -> str:
    """The name of a compiled function within its module: torch.special.expit calls itself special_expit."""
    return next((name[len(prefix) :] for prefix in _OWNERS if name.startswith(prefix)), name)


def _rename(node: fx.Node, name: str) -> None:
    """Call an operator without a rule by another name for it that has one."""
    name = _newly_made(node) if name == "new" else name
    name = _SYNONYMS.get(_plainly(name), _plainly(name))
    own = name if node.op == "call_method" else getattr(torch, name, None)
    for other in (own, _OTHERWISE.get(name), getattr(torch, name, None)):
        if other is not None and other in registered() and _takes(other, node):
            node.op, node.target = "call_method" if isinstance(other, str) else "call_function", other
            return


def _newly_made(node: fx.Node) -> str:
    """Today's name for `x.new(2, 3)`, a tensor of these sizes, and for `x.new([2, 3])`, one of these numbers."""
    given = [item.meta["value"] if isinstance(item, fx.Node) else item for item in node.args[1:]]
    sizes = given[0] if len(given) == 1 and isinstance(given[0], torch.Size) else given
    if sizes and not node.kwargs and all(type(item) is int for item in sizes):
        return "new_empty"
    return "new_tensor" if len(given) == 1 and isinstance(given[0], list) and not node.kwargs else "new"


def _compiled(node: fx.Node) -> bool:
    """Whether a node calls a compiled function of torch's: a Python function has names of its own."""
    return node.op == "call_function" and isinstance(node.target, types.BuiltinFunctionType)


def _takes(other: Callable[..., Any] | str, node: fx.Node) -> bool:
    """Whether another operator takes what a node hands over: some of torch's take an argument or a name more."""
    if other is torch.zeros:
        return "memory_format" not in node.kwargs
    if not isinstance(other, types.FunctionType):
        return not node.kwargs or getattr(other, "__module__", "") != operator.and_.__module__
    try:
        inspect.signature(other).bind(*node.args, **node.kwargs)
    except TypeError:
        return False
    return True
