"""Which nodes count in train mode alone: noise by hand under `if self.training`, and what it is made of."""

from __future__ import annotations

from torch import fx

from graphgrow.layers import ByMode


def in_train_alone(graph: fx.Graph) -> frozenset[fx.Node]:
    """The nodes of a graph module whose results go nowhere but to where a `ByMode` takes them in train mode."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):  # users first
        if node.users and all(user in found or _takes_in_train(user, node) for user in node.users):
            found.add(node)
    return frozenset(found)


def _takes_in_train(user: fx.Node, node: fx.Node) -> bool:
    """Whether a node reads another as what it passes on in train mode, and not as the other value."""
    module = user.graph.owning_module
    if user.op != "call_module" or module is None:
        return False
    return isinstance(module.get_submodule(str(user.target)), ByMode) and node not in user.args[1:]
