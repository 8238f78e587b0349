"""Which parameters stand near a node of a graph."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from graphgrow.ir.called import called_module


def near_parameters(module: fx.GraphModule, site: fx.Node) -> Iterator[nn.Parameter]:
    """The floating-point parameters around a node, nearest first: in front of it, then behind it, then anywhere."""
    told: set[fx.Node] = set()
    for directions in (("all_input_nodes",), ("users",), ("all_input_nodes", "users")):
        seen, pending = {site}, [site]
        while pending:
            node = pending.pop(0)
            if node not in told:
                told.add(node)
                yield from (p for p in parameters_of(module, node) if p.is_floating_point())
            following = [n for way in directions for n in getattr(node, way) if n not in seen]
            seen.update(following)
            pending.extend(following)


def parameters_of(module: fx.GraphModule, node: fx.Node) -> list[nn.Parameter]:
    """The parameters that a node holds itself."""
    if node.op == "call_module":
        return list(module.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        owner, _, field = str(node.target).rpartition(".")
        tensor = getattr(module.get_submodule(owner), field, None)
        return [tensor] if isinstance(tensor, nn.Parameter) else []
    return []


def holders_of(module: fx.GraphModule) -> dict[int, list[fx.Node]]:
    """By identity of a parameter, the nodes that hold it, in graph order."""
    held: dict[int, list[fx.Node]] = {}
    for node in module.graph.nodes:
        for parameter in parameters_of(module, node):
            held.setdefault(id(parameter), []).append(node)
    return held


def is_batch_norm(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a batch norm, which takes out again any number that is added to a whole channel."""
    return isinstance(called_module(module, node), nn.modules.batchnorm._BatchNorm)


def new_parameters(module: fx.GraphModule, known: set[int]) -> Iterator[tuple[nn.Parameter, fx.Node]]:
    """The parameters whose id is not known, each with the first node that holds it."""
    seen = set(known)
    for node in module.graph.nodes:
        for parameter in parameters_of(module, node):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter, node


def in_front_of(node: fx.Node) -> set[fx.Node]:
    """A node and all that it is computed from."""
    found: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current not in found:
            found.add(current)
            pending.extend(current.all_input_nodes)
    return found
