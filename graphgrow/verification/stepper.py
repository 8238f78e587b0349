"""Running a graph node by node, keeping no value longer than it is needed."""

from __future__ import annotations

from typing import Any

from torch import fx, nn


class Stepper:
    """Executes the nodes of a graph module one at a time.

    Attributes:
        values: by node name, the values that are still needed.
    """

    def __init__(self, module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._module = module
        self.values: dict[str, Any] = {}
        self._inputs = list(args)
        self._named = dict(kwargs)
        self._last_use: dict[str, list[str]] = {}
        last: dict[str, str] = {}
        for node in module.graph.nodes:
            for used in node.all_input_nodes:
                last[used.name] = node.name
        for name, user in last.items():
            self._last_use.setdefault(user, []).append(name)

    def run(self, node: fx.Node) -> Any:
        """Execute one node, whose inputs have been executed before."""
        if node.op == "placeholder":
            value = self._input(node)
        elif node.op == "output":
            value = self.arguments(node.args[0])
        else:
            value = execute(self._module, node, self.arguments(node.args), self.arguments(node.kwargs))
        self.values[node.name] = value
        return value

    def release(self, node: fx.Node) -> None:
        """Forget the values that no node behind this one needs."""
        for name in self._last_use.get(node.name, ()):
            self.values.pop(name, None)

    def arguments(self, arguments: Any) -> Any:
        """Arguments with nodes replaced by their values."""
        return fx.node.map_arg(arguments, lambda node: self.values[node.name])

    def _input(self, node: fx.Node) -> Any:
        if self._inputs:
            return self._inputs.pop(0)
        if str(node.target) in self._named:
            return self._named[str(node.target)]
        return node.args[0] if node.args else None


def execute(module: nn.Module, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """What one node computes from given arguments."""
    if node.op == "get_attr":
        value: Any = module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value
    if node.op == "call_module":
        return module.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)
