"""Buffers that the forward writes: what they take in carries no gradient that it did not carry in the model."""

from __future__ import annotations

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.meta import OVERWRITTEN
from graphgrow.rewrite.memory import memory_roots, written


def refuse_gradients_in_buffers(before: fx.GraphModule, after: fx.GraphModule) -> None:
    """Decline where a buffer would require gradients after a forward pass, and does not in the model.

    What was put in front of such a write would keep the pass's graph alive, and never learn by it.

    Raises:
        Declined: if so.
    """
    if not any(node.meta.get(OVERWRITTEN) for node in after.graph.nodes):
        return
    held = _learning_writes(before)
    for name, buffer in _learning_writes(after).items():
        if name not in held:
            raise Declined(
                f"`{buffer}` is written in the forward and takes no gradient; new parameters would give it one"
                f" (at `{name}`)"
            )


def _learning_writes(module: fx.GraphModule) -> dict[str, str]:
    """By name of the nodes that write into a buffer what has a gradient, the path of the buffer."""
    nodes = list(module.graph.nodes)
    roots = memory_roots(nodes, module)
    learning: set[fx.Node] = set()
    found: dict[str, str] = {}
    for node in nodes:
        if _has_gradient(node, module, learning):
            learning.add(node)
            for root in (root for target in written(node, module) for root in roots[target]):
                if root.meta.get(OVERWRITTEN):
                    found[node.name] = str(root.target)
    return found


def _has_gradient(node: fx.Node, module: fx.GraphModule, learning: set[fx.Node]) -> bool:
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(module.get_submodule(owner), name)
        return isinstance(value, nn.Parameter) and value.requires_grad
    if "detach" in (node.target, getattr(node.target, "__name__", "")) or not _floating(node):
        return False
    part = called_module(module, node)
    own = part is not None and any(parameter.requires_grad for parameter in part.parameters())
    return own or any(used in learning for used in node.all_input_nodes)


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("value")
    return not isinstance(value, torch.Tensor) or value.is_floating_point() or value.is_complex()
