"""Calls of torch's operators in one spelling, the one that rules and passes know.

torch takes NumPy's names beside its own (`x.mean(axis=1, keepdims=True)`), and its leading arguments by name as well as
by position (`x.permute(dims=(0, 2, 1))`). What such a call means does not depend on how it is written.
"""

from __future__ import annotations

import types
from collections.abc import Mapping

from torch import fx

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


def spell(graph: fx.Graph) -> None:
    """Write calls of torch's own operators alike, in place.

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


def _compiled(node: fx.Node) -> bool:
    """Whether a node calls a compiled function of torch's: a Python function has names of its own."""
    return node.op == "call_function" and isinstance(node.target, types.BuiltinFunctionType)
