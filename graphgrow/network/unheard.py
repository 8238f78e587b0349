"""Values that are multiplied by zeros and read by nothing else: what stands there gets no gradient, and never learns.

The first step of a recurrent layer that is spelled out is such a place: its forget gate is multiplied by a state of
zeros. A change there is exact, and of no use, so that it is not offered.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from graphgrow.ir.dependence import numbers_read
from graphgrow.network.memory import holds_tensor, memory_roots, written

NOTHING_LEARNS = "it is multiplied by zeros alone, so that nothing would learn here"
_ZEROS = (torch.zeros, torch.zeros_like, "new_zeros")
_PRODUCTS = (operator.mul, torch.mul, "mul", "__mul__", "__rmul__")
_KEEPING = (
    "view", "reshape", "expand", "expand_as", "repeat", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "to",
    "type_as", "contiguous", "clone", "detach", operator.getitem, torch.unsqueeze, torch.squeeze, torch.clone,
    operator.neg, torch.neg, "neg",
)  # fmt: skip


def unheard(module: fx.GraphModule) -> frozenset[fx.Node]:
    """The nodes whose values reach what the model puts out by products with constants of zeros alone."""
    zeros = _zeros(module)
    if not zeros:
        return frozenset()
    found: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        readers = [user for user in node.users if node in numbers_read(user)]
        if (
            holds_tensor(node)
            and node not in zeros
            and readers
            and all(user in found or user in zeros for user in readers)
        ):
            found.add(node)
    return frozenset(found)


def _zeros(module: fx.GraphModule) -> frozenset[fx.Node]:
    """The nodes that are zero whatever the inputs and weights are: constants, views of them, products with them."""
    nodes = list(module.graph.nodes)
    if not any(node.target in _ZEROS for node in nodes):
        return frozenset()
    roots = memory_roots(nodes, module)
    filled = {root for node in nodes for target in written(node, module) for root in roots[target]}
    found: set[fx.Node] = set()
    for node in nodes:
        factors = node.args[:2] if node.target in _PRODUCTS else node.args[:1] if node.target in _KEEPING else ()
        is_zero = node.target in _ZEROS or any(isinstance(one, fx.Node) and one in found for one in factors)
        if is_zero and not filled & roots[node]:  # else there may be something in it by then
            found.add(node)
    return frozenset(found)
