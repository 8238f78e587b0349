"""Where a graph attends, and which of its axes are heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ir.called import called_module
from graphgrow.ir.terms import Space, Term, leaves
from graphgrow.ir.value import Value
from graphgrow.layers import ScaledDotProductAttention
from graphgrow.network.network import Network
from graphgrow.network.sites import scope_of

_SOFTMAX = (F.softmax, torch.softmax, torch.nn.functional.softmax, "softmax")


@dataclass(frozen=True)
class Attention:
    """One place where queries look at keys.

    Attributes:
        node: the attention itself, or the softmax of one that is spelled out.
        name: the module in whose forward it stands, where it is the only one there; else its own site.
        heads: the axis of query heads, None where there is none: a product of key and value heads, and of the query
            heads that share each, where several do.
    """

    node: fx.Node
    name: str
    heads: Term | None

    @property
    def spaces(self) -> list[Space]:
        """The factors of the heads: key and value heads first."""
        return [] if self.heads is None else [leaf for leaf in dict.fromkeys(leaves(self.heads)) if leaf.size > 0]


def attentions(network: Network) -> Iterator[Attention]:
    """Every attention of a graph, in its order."""
    found = [(node, heads) for node in network.module.graph.nodes for heads in _heads(network, node)]
    scopes = [scope_of(node) for node, _ in found]
    for (node, heads), scope in zip(found, scopes, strict=True):
        name = scope if scope and scopes.count(scope) == 1 else network.sites.name(node)
        yield Attention(node, name, heads)


def _heads(network: Network, node: fx.Node) -> list[Term | None]:
    """The axis of heads of an attention, one item; no item for any other node."""
    facts = network.analysis.facts[node]
    module = called_module(network.module, node)
    if node.target is F.scaled_dot_product_attention or isinstance(module, ScaledDotProductAttention):
        query = facts.operands[0]
        return [query.axes[-3] if len(query.axes) > 3 else None]
    spelled = isinstance(module, nn.Softmax) or (node.op != "call_module" and node.target in _SOFTMAX)
    if not spelled or not isinstance(facts.output, Value) or not _weighs(network, node):
        return []
    return [facts.output.axes[1] if len(facts.output.axes) > 3 else None]


def _weighs(network: Network, node: fx.Node) -> bool:
    """Whether a softmax stands between two products of activations over an axis: scores before, values behind."""
    contracting = {
        facts.node
        for facts in network.analysis.facts.values()
        for c in facts.contractions
        if not c.left.parameter and not c.right.parameter
    }
    return _meets(node, contracting, "all_input_nodes") and _meets(node, contracting, "users")


def _meets(node: fx.Node, wanted: set[fx.Node], direction: str, steps: int = 8) -> bool:
    """Whether a wanted node is met within some steps."""
    reached = {node}
    for _ in range(steps):
        reached = {following for current in reached for following in getattr(current, direction)}
        if reached & wanted:
            return True
    return False
