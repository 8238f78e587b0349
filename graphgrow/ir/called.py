"""Which module a node calls."""

from __future__ import annotations

from torch import fx, nn


def called_module(root: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module below `root` that a node calls; None for a node of another kind."""
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None
