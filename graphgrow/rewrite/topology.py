"""The graph as networkx sees it: nodes by name, an edge from each producer to each consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.errors import MutationError, Unsupported, did_you_mean
from graphgrow.network.network import Network
from graphgrow.network.sites import scope_of
from graphgrow.rewrite.cost import node_flops, node_parameters

if TYPE_CHECKING:
    import networkx as nx

VIRTUAL_ROOT = ""
"""What dominates the inputs where there are several; no node has this name."""


def to_networkx(network: Network) -> nx.DiGraph:
    """The graph as a networkx.DiGraph, its nodes in graph order.

    Each node carries `op` and `target` (both texts, a function by its name), `path` (of the module that it calls, or
    in whose forward it stands; None outside of all), `shape` (of its value on the example inputs; None where that is
    no single tensor), `parameters` and `flops` (as `node_costs`, for one sample; all flops are None for a model whose
    FLOPs cannot be counted).
    """
    graph = _edges(network.module.graph)
    parameters = node_parameters(network)
    flops = _flops_or_none(network)
    for node in network.analysis.facts:
        value = node.meta["value"]
        graph.nodes[node.name].update(
            op=node.op,
            target=node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target)),
            path=_path(node),
            shape=tuple(value.shape) if isinstance(value, torch.Tensor) else None,
            parameters=parameters[node.name],
            flops=flops.get(node.name),
        )
    return graph


def reaches(network: Network, source_name: str, target_name: str) -> bool:
    """Whether a path leads from one node to another, so that feeding the second to the first would close a circle.

    A node reaches itself.

    Raises:
        MutationError: if there is no node of such a name.
    """
    import networkx as nx

    graph = _edges(network.module.graph)
    for name in (source_name, target_name):
        if name not in graph:
            hint = did_you_mean(name, graph, "see graph.text() for their names")
            raise MutationError(f"there is no node `{name}`; {hint}")
    return bool(nx.has_path(graph, source_name, target_name))


def dominators(network: Network) -> dict[str, str]:
    """The immediate dominator of each node: the last one that all that flows to it from the inputs goes through.

    What flows are tensors: a size that is read off an early value and used far behind is no way around. Nodes that
    no input reaches (fetched parameters, constants) are left out, and so is the root. The root is the one tensor
    input that is used; where there are several, it is `VIRTUAL_ROOT`, which then dominates them.
    """
    import networkx as nx

    numbers = {node.name for node in network.analysis.facts if not _holds_tensor(node.meta["value"])}
    placeholders = [node.name for node in network.module.graph.nodes if node.op == "placeholder" and node.users]
    inputs = [name for name in placeholders if name not in numbers]
    if not inputs:
        return {}
    graph = _edges(network.module.graph)
    graph.remove_edges_from([edge for edge in graph.edges if edge[0] in numbers])
    root = inputs[0] if len(inputs) == 1 else VIRTUAL_ROOT
    if root == VIRTUAL_ROOT:
        graph.add_edges_from((VIRTUAL_ROOT, name) for name in inputs)
    found = nx.immediate_dominators(graph, root)
    return {name: found[name] for name in graph if name in found and name != root}


def _edges(graph: fx.Graph) -> nx.DiGraph:
    import networkx as nx  # here, so that `import graphgrow` stays quick

    result = nx.DiGraph()
    result.add_nodes_from(node.name for node in graph.nodes)
    result.add_edges_from((node.name, user.name) for node in graph.nodes for user in node.users)
    return result


def _flops_or_none(network: Network) -> dict[str, int]:
    try:
        return node_flops(network)
    except Unsupported:
        return {}


def _path(node: fx.Node) -> str | None:
    if node.op == "call_module":
        return str(node.target)
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[0] or None
    return scope_of(node) or None


def _holds_tensor(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
