"""Which values of a graph may share memory, and which nodes write into it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.graphs.writes import is_inplace
from graphgrow.ir.called import called_module
from graphgrow.ops import pointwise
from graphgrow.ops.registry import rule_of

_NEVER_VIEWS = (
    "add", "mul", "sub", "truediv", "div", "neg", "pow", "cat", "stack", "matmul", "bmm", "linear", "softmax", "clone",
    "mean", "sum", "scaled_dot_product_attention", "layer_norm", "group_norm", "batch_norm",
)  # fmt: skip
_ELEMENTWISE_RULES = (
    pointwise.zero_keeping,
    pointwise.limited,
    pointwise.bounded,
    pointwise.growing,
    pointwise.growing_from_zero,
    pointwise.partial,
)


def written(node: fx.Node, module: nn.Module) -> list[fx.Node]:
    """The nodes into whose memory a node writes."""
    targets = []
    if is_inplace(node, module):
        targets.append(node.args[0] if node.args else node.kwargs.get("input"))
    targets.append(node.kwargs.get("out"))
    return [target for target in targets if isinstance(target, fx.Node)]


def may_alias(node: fx.Node, module: nn.Module) -> bool:
    """Whether a node's value may be a view of what it reads; yes where that is not known."""
    if not node.op.startswith("call") or not holds_tensor(node):
        return False
    if written(node, module):
        return True
    part = called_module(module, node)
    if part is not None and any(True for _ in part.parameters()):
        return False
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return rule_of(node, part) not in _ELEMENTWISE_RULES and (part is not None or name not in _NEVER_VIEWS)


def memory_roots(nodes: Iterable[fx.Node], module: nn.Module) -> dict[fx.Node, frozenset[fx.Node]]:
    """For each of some nodes, in graph order, the nodes whose memory its value may share.

    A node that is read and is not one of them stands for itself.
    """
    roots: dict[fx.Node, frozenset[fx.Node]] = {}
    for node in nodes:
        roots[node] = frozenset({node})
        if may_alias(node, module):
            sources = written(node, module) or node.all_input_nodes
            roots[node] = frozenset().union(*(roots.get(used, frozenset({used})) for used in sources))
    return roots


def overwritten(node: fx.Node, module: nn.Module) -> bool:
    """Whether an operator behind a node writes into its memory, directly or through any view of it."""
    nodes = list(node.graph.nodes)
    roots = memory_roots(nodes, module)
    behind = nodes[nodes.index(node) + 1 :]
    return any(roots[target] & roots[node] for later in behind for target in written(later, module))


def holds_tensor(node: fx.Node) -> bool:
    """Whether a node puts out a tensor, and not sizes or a dtype alone; yes where that is not known."""
    value = node.meta.get("value")
    return value is None or any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
