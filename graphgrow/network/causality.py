"""Whether a new attention may look at later tokens: only where the model itself is seen to do so."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from graphgrow.errors import Declined
from graphgrow.ir.called import called_module
from graphgrow.ir.dependence import nodes_fed
from graphgrow.ir.terms import Space, leaves
from graphgrow.ir.value import Value
from graphgrow.layers import ScaledDotProductAttention
from graphgrow.network.network import Network

_SOFTMAX = (torch.softmax, F.softmax, "softmax")
_PRODUCTS = (torch.matmul, operator.matmul, torch.bmm, torch.einsum, torch.baddbmm, "matmul", "bmm", "__matmul__")


def must_be_causal(network: Network, site: fx.Node) -> bool:
    """Whether a new self-attention behind a site of tokens (N, L, C) must hide later tokens from earlier ones.

    It may see all of them only where an operator of the model does so over the same axis: an attention without a mask,
    or a linear map along the tokens; and no attention over it is causal or has a mask. A causal block can never tell
    a token what it could not know.

    Raises:
        Declined: if an attention over that axis has a mask that depends on the model's inputs: which tokens it hides
            changes from call to call, and a new attention would not know.
    """
    facts = network.analysis.facts
    value = facts[site].output
    assert isinstance(value, Value)
    tokens = list(leaves(value.axes[1]))
    seen = hidden = False
    fed = nodes_fed(network.module.graph)
    for node in network.module.graph.nodes:
        if _attends(network, node, tokens):
            masks = list(_masks(network, node))
            mask = next((mask for mask in masks if mask in fed), None)
            if mask is not None:
                raise Declined(
                    f"`{node.name}` has a mask that depends on the model's inputs (`{mask.name}`), which a new "
                    "attention would not know; use kind=copy, which keeps it"
                )
            masked = bool(masks) or _is_causal(network, node)
            hidden, seen = hidden or masked, seen or not masked
        elif node in facts:
            seen = seen or any(
                c.right.parameter is not c.left.parameter and list(leaves(c.term)) == tokens
                for c in facts[node].contractions
            )
    return hidden or not seen


def _attends(network: Network, node: fx.Node, tokens: list[Space]) -> bool:
    """Whether a node is an attention of tokens to each other: torch's, or the softmax of one that is spelled out."""
    facts = network.analysis.facts
    if is_attention(network, node):
        values = [facts[used].output for used in node.args[:2] if isinstance(used, fx.Node)]
        return len(values) == 2 and all(
            isinstance(value, Value) and list(leaves(value.axes[-2])) == tokens for value in values
        )
    if node.target not in _SOFTMAX:
        return False
    scores = facts[node].output
    return isinstance(scores, Value) and len(scores.axes) > 1 and list(leaves(scores.axes[-1])) == tokens


def is_attention(network: Network, node: fx.Node) -> bool:
    """Whether a node is torch's scaled dot product attention."""
    if node.op == "call_module":
        return isinstance(network.module.get_submodule(str(node.target)), ScaledDotProductAttention)
    return getattr(node.target, "__name__", "") == "scaled_dot_product_attention"


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _is_causal(network: Network, node: fx.Node) -> bool:
    part = called_module(network.module, node)
    if isinstance(part, ScaledDotProductAttention):
        return part.is_causal
    return is_attention(network, node) and bool(_argument(node, 5, "is_causal"))


def _masks(network: Network, node: fx.Node) -> Iterator[fx.Node]:
    """Tensors that may hide tokens: attention's mask; all that scores meet between their product and the softmax."""
    if is_attention(network, node):
        mask = _argument(node, 3, "attn_mask")
        if isinstance(mask, fx.Node):
            yield mask
        return
    scores = node.all_input_nodes[0]
    while scores.target not in _PRODUCTS:
        tensors = [used for used in scores.all_input_nodes if isinstance(used.meta.get("value"), torch.Tensor)]
        ways = [used for used in tensors if _comes_from_product(used)]
        yield from (used for used in tensors if used not in ways[:1])
        if not ways:
            return
        scores = ways[0]


def _comes_from_product(node: fx.Node) -> bool:
    pending, known = [node], {node}
    while pending:
        current = pending.pop()
        if current.target in _PRODUCTS:
            return True
        fresh = [used for used in current.all_input_nodes if used not in known]
        known.update(fresh)
        pending.extend(fresh)
    return False
