"""Looking at the values inside a graph while it runs in the user's own loop, and leaving no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import fx

from graphgrow.errors import SignalError
from graphgrow.ir.inputs import bind

Callback = Callable[[torch.Tensor], None]


class Signal(Protocol):
    """Something that is measured from the values of a graph, batch by batch."""

    def watches(self) -> Iterable[tuple[str, Callback]]:
        """Names of nodes, each with what is to be told its value as soon as it is computed."""


class Watch:
    """While it is entered, calls of the graph module tell signals the values of its nodes.

    Only the module's `forward` is exchanged, for one that runs node by node, and put back at the end: parameters,
    submodules, their hooks and the graph stay as they are, and what is computed is the same. A value is shown before
    an operator behind it can overwrite it. A signal that wants the gradient of a value hooks onto it with
    `on_gradient`; such a hook ends with the batch.

    Args:
        module: the graph module; not a compiled one.
        signals: told in this order.

    Raises:
        SignalError: if a signal names a node that the graph does not have.
    """

    def __init__(self, module: fx.GraphModule, signals: Iterable[Signal]) -> None:
        self._module = module
        self._callbacks: dict[str, list[Callback]] = {}
        names = {node.name for node in module.graph.nodes}
        for signal in signals:
            for name, callback in signal.watches():
                if name not in names:
                    raise SignalError(f"the graph has no node `{name}`; make the signals from the graph that is run")
                self._callbacks.setdefault(name, []).append(callback)

    def __enter__(self) -> Self:
        if "forward" in self._module.__dict__:
            raise SignalError("this graph module is being watched already; leave the other watch first")
        runner = _Runner(self._module, self._callbacks)
        self._module.__dict__["forward"] = runner.forward
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._module.__dict__["forward"]


def on_gradient(value: torch.Tensor, callback: Callback) -> None:
    """Have a callback told the loss's gradient with respect to a value, where there will be one."""
    if value.requires_grad:
        value.register_hook(lambda gradient: _show(gradient.detach(), callback))  # type: ignore[no-untyped-call]


def _show(value: Any, callback: Callback) -> None:
    """Tell a callback, whose sums are not to be rounded by an autocast of the user's."""
    kind = value.device.type if isinstance(value, torch.Tensor) else "cpu"
    if not torch.is_autocast_enabled(kind):
        callback(value)
        return
    with torch.autocast(kind, enabled=False):
        callback(value)


class _Runner(fx.Interpreter):
    """Runs a graph node by node and shows the values that were asked for."""

    def __init__(self, module: fx.GraphModule, callbacks: dict[str, list[Callback]]) -> None:
        super().__init__(module)
        self._callbacks = callbacks
        self._order = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
        self._named: dict[str, Any] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the graph module's own."""
        self._named = bind(self._order, args, kwargs)
        return self.run()

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """An input, or its default."""
        if target in self._named:
            return self._named[target]
        return super().placeholder(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and show its value where that was asked for."""
        value = super().run_node(n)
        for callback in self._callbacks.get(n.name, ()):
            _show(value, callback)
        return value
