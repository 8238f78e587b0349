"""The names by which users call the nodes of a graph: module paths, never counters of fx."""

from __future__ import annotations

from torch import fx

from graphgrow.errors import MutationError, did_you_mean
from graphgrow.ir.meta import STACK

STEM = "graphgrow_site"  # the key under which a node whose operator was exchanged keeps its site's name


def scope_of(node: fx.Node) -> str:
    """The path of the innermost module in whose forward the node stands; empty for the whole model's."""
    stack = node.meta.get(STACK) or {}
    path = ""
    for path, _ in stack.values():  # noqa: B007  # the last one is wanted
        pass
    return str(path)


class Sites:
    """Site names of all nodes of a graph.

    A node that calls a module is called by the module's path, its n-th call by `path@n`. Any other operator is called
    by the module in whose forward it stands and its own name: `layer1.0:add`, the n-th of them `layer1.0:add@n`. The
    path of a module that holds others is the node whose value leaves it. An input is called by its name, `:name` where
    a module has that path.

    Args:
        module: the graph.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self._nodes: dict[str, fx.Node] = {}
        self._names: dict[fx.Node, str] = {}
        self._leaving: dict[str, list[fx.Node]] = {}
        self._standing: dict[str, list[fx.Node]] = {}
        self._positions = {node: number for number, node in enumerate(module.graph.nodes)}
        counts: dict[str, int] = {}
        paths: dict[str, fx.Node] = {}
        modules = _module_paths(module)
        for node in module.graph.nodes:
            if node.op == "output":
                continue
            stem = stem_of(node)
            if node.op == "placeholder" and stem in modules:
                stem = f":{stem}"
            counts[stem] = counts.get(stem, 0) + 1
            name = stem if counts[stem] == 1 else f"{stem}@{counts[stem]}"
            self._nodes[name] = node
            self._names[node] = name
            if node.op == "call_module":
                paths.setdefault(str(node.target), node)
            for path in _paths_left(node):
                self._leaving.setdefault(path, []).append(node)
            for path in dict.fromkeys(str(path) for path, _ in (node.meta.get(STACK) or {}).values()):
                self._standing.setdefault(path, []).append(node)
        for path, node in paths.items():  # the module that an exchange put beside another's path
            self._nodes.setdefault(path, node)

    def name(self, node: fx.Node) -> str:
        """The name of a node."""
        return self._names[node]

    def named(self, name: str) -> fx.Node | None:
        """The node whose own name that is; None where it is none's, or the path of a module with others in it."""
        node = self._nodes.get(name)
        return node if node is not None and self._names[node] == name else None

    def position(self, node: fx.Node) -> int:
        """Where a node stands in the order of the graph, from 0."""
        return self._positions[node]

    def containers(self, node: fx.Node) -> list[str]:
        """The paths of modules whose one result the node is, innermost first."""
        return [path for path in reversed(_paths_left(node)) if self._leaving[path] == [node]]

    def standing(self, path: str) -> list[fx.Node]:
        """The nodes that stand in the forward of the module of a path, in graph order."""
        return self._standing.get(path, [])

    def find(self, name: str) -> fx.Node:
        """The node of a name.

        Raises:
            MutationError: if there is none, or the module of that path gives out several values.
        """
        if name in self._nodes:
            return self._nodes[name]
        leaving = self._leaving.get(name, [])
        if len(leaving) == 1:
            return leaving[0]
        if leaving:
            found = ", ".join(f"`{self._names[node]}`" for node in leaving)
            raise MutationError(f"several values leave `{name}`: {found}; name one of them")
        hint = did_you_mean(name, [*self._nodes, *self._leaving], "see graph.mutations() or graph.text()")
        raise MutationError(f"there is no site `{name}`; {hint}")


def stem_of(node: fx.Node) -> str:
    """The name of a node's site without its count."""
    if STEM in node.meta:
        return str(node.meta[STEM])
    if node.op in ("call_module", "placeholder", "get_attr"):
        return str(node.target)
    operator = str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", node.target))
    return f"{scope_of(node)}:{operator}"


def _module_paths(module: fx.GraphModule) -> set[str]:
    """The paths of all modules that a node calls or stands in."""
    called = {str(node.target) for node in module.graph.nodes if node.op == "call_module"}
    stacks = (node.meta.get(STACK) or {} for node in module.graph.nodes)
    return called | {str(path) for stack in stacks for path, _ in stack.values()}


def _paths_left(node: fx.Node) -> list[str]:
    """The modules, outermost first, that the node stands in and one of its readers does not."""
    mine = [str(path) for path, _ in (node.meta.get(STACK) or {}).values()]
    if node.op == "call_module":
        mine = [path for path in mine if path != str(node.target)]
    if not mine:
        return []
    readers = [{str(path) for path, _ in (user.meta.get(STACK) or {}).values()} for user in node.users]
    return [path for path in dict.fromkeys(mine) if path and any(path not in around for around in readers)]
