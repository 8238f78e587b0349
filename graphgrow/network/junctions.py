"""The values of a graph at which blocks and connections are usually put: activations, sums, and results of modules."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import fx

from graphgrow.ir.called import called_module
from graphgrow.network.gradients import shut_off
from graphgrow.network.network import Network
from graphgrow.network.unheard import unheard
from graphgrow.ops import pointwise
from graphgrow.ops.registry import rule_of

_SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_ACTIVATION_RULES = {pointwise.zero_keeping, pointwise.limited, pointwise.bounded, pointwise.prelu, pointwise.blend}


def junctions(network: Network) -> Iterator[fx.Node]:
    """Activations, sums of two tensors, and values that leave a module, in graph order.

    Numbers, tables that no input reaches, what no output depends on, what can have no gradient since that would need
    numbers that the forward overwrites, what is multiplied by zeros alone, and the model's outputs are left out.
    """
    shut = shut_off(network.module) | unheard(network.module)
    fed: set[fx.Node] = set()
    wanted: set[fx.Node] = set()
    for node in reversed(network.module.graph.nodes):
        if node.op == "output" or node in wanted:
            wanted.update(node.all_input_nodes)
    for node in network.module.graph.nodes:
        if node.op == "placeholder" or any(used in fed for used in node.all_input_nodes):
            fed.add(node)
        value = node.meta.get("value")
        if not node.op.startswith("call") or node not in fed or node not in wanted or node in shut:
            continue
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dim() < 2:
            continue
        if all(user.op == "output" for user in node.users):
            continue
        if is_activation(network, node) or is_sum(node) or network.sites.containers(node):
            yield node


def is_activation(network: Network, node: fx.Node) -> bool:
    """Whether a node applies an elementwise function of one tensor."""
    part = called_module(network.module, node)
    return len(node.all_input_nodes) == 1 and rule_of(node, part) in _ACTIVATION_RULES


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two tensors."""
    terms = [used for used in node.all_input_nodes if isinstance(used.meta.get("value"), torch.Tensor)]
    return node.op in ("call_function", "call_method") and node.target in _SUMS and len(terms) == 2
