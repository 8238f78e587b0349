"""Buffers that the forward writes: no gradient goes into them, or through their readers, that did not in the model."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx, nn

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.meta import OVERWRITTEN
from graphgrow.network.memory import memory_roots, written


def refuse_gradients_in_buffers(before: fx.GraphModule, after: fx.GraphModule) -> None:
    """Decline where a buffer would require gradients after a forward pass, or a backward pass need its old numbers.

    What was put in front of such a write would keep the pass's graph alive, and never learn by it. And torch refuses
    to differentiate what has read numbers that are overwritten by then. What is so in the model already stays.

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
    known = {node.name for node, (_, differentiated) in _reads(before).items() if differentiated}
    for node, (buffer, differentiated) in _reads(after).items():
        if differentiated and node.name not in known:
            raise Declined(
                f"`{buffer}` is overwritten in the forward, and a gradient would need the numbers that it held before"
                f" (at `{node.name}`)"
            )


def shut_off(module: fx.GraphModule) -> set[fx.Node]:
    """The nodes that pass on what no gradient can come back through, since it would need overwritten numbers."""
    reads = _reads(module) if any(node.meta.get(OVERWRITTEN) for node in module.graph.nodes) else {}
    found = {node for node, (_, differentiated) in reads.items() if not differentiated}
    for node in module.graph.nodes:
        if any(used in found for used in node.all_input_nodes) and _floating(node) and not _detaches(node):
            found.add(node)
    return found


def _learning_writes(module: fx.GraphModule) -> dict[str, str]:
    """By name of the nodes that write into a buffer what has a gradient, the path of the buffer."""
    nodes = list(module.graph.nodes)
    roots = memory_roots(nodes, module)
    found: dict[str, str] = {}
    for node in _learning(module):
        for root in (root for target in written(node, module) for root in roots[target]):
            if root.meta.get(OVERWRITTEN):
                found[node.name] = str(root.target)
    return found


def _reads(module: fx.GraphModule) -> dict[fx.Node, tuple[str, bool]]:
    """Of the nodes that may have a gradient, and read what a buffer holds before a write, its path, and if they do."""
    nodes = list(module.graph.nodes)
    roots = memory_roots(nodes, module)
    learning = _learning(module)
    asked: set[fx.Node] = set()  # what an output's gradient comes back to
    for node in reversed(nodes):
        if node.op == "output" or (node in asked and node in learning):
            asked.update(node.all_input_nodes)
    found: dict[fx.Node, tuple[str, bool]] = {}
    overwritten: set[fx.Node] = set()
    for node in reversed(nodes):
        if node.op.startswith("call") and node in learning:
            for root in overwritten.intersection(root for used in node.all_input_nodes for root in roots[used]):
                found[node] = str(root.target), node in asked
        targets = frozenset().union(*(roots[target] for target in written(node, module)))
        overwritten.update(root for root in targets if root.meta.get(OVERWRITTEN))
    return found


def _learning(module: fx.GraphModule) -> dict[fx.Node, None]:
    """The nodes whose values depend on a parameter that requires gradients, in graph order."""
    found: dict[fx.Node, None] = {}
    for node in module.graph.nodes:
        if _has_gradient(node, module, found):
            found[node] = None
    return found


def _has_gradient(node: fx.Node, module: fx.GraphModule, learning: Collection[fx.Node]) -> bool:
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(module.get_submodule(owner), name)
        return isinstance(value, nn.Parameter) and value.requires_grad
    if _detaches(node) or not _floating(node):
        return False
    part = called_module(module, node)
    own = part is not None and any(parameter.requires_grad for parameter in part.parameters())
    return own or any(used in learning for used in node.all_input_nodes)


def _detaches(node: fx.Node) -> bool:
    return "detach" in (node.target, getattr(node.target, "__name__", ""))


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("value")
    return not isinstance(value, torch.Tensor) or value.is_floating_point() or value.is_complex()
