"""What a forward computes under `torch.no_grad()`: in the graph, operators on detached tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx, nn


class WithoutGradient:
    """Stops gradients where the model does.

    Args:
        tracer: records the operators.
        held_at: what the model holds at a path.
    """

    def __init__(self, tracer: fx.Tracer, held_at: Callable[[str], Any]) -> None:
        self._tracer, self._held_at = tracer, held_at
        self._detached: dict[fx.Node, fx.Proxy] = {}  # by node, the proxy of its value that carries no gradient

    def arguments(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """An operator's arguments, each tensor among them detached."""
        # What is written stays without gradient, whatever is put in between: a buffer would keep it over steps.
        again = kind == "call_method" and target.endswith("_") and not target.endswith("__")
        stopped = partial(self._stopped, again=again)
        first, rest = args[:1], args[1:]
        return (
            (*fx.node.map_aggregate(first, self._stopped), *fx.node.map_aggregate(rest, stopped)),
            fx.node.map_aggregate(kwargs, stopped),
        )

    def answer(self, kind: str, result: fx.Proxy) -> Any:
        """What the operator has answered; of a layer, whose parameters have gradients, detached."""
        self._detached[result.node] = result
        return self._stopped(result, again=kind == "call_module")

    def _stopped(self, value: Any, again: bool = False) -> Any:
        """A tensor's detached view, made once; anything else as it is."""
        if not isinstance(value, fx.Proxy):
            return value
        example = value.node.meta["value"]
        floating = isinstance(example, torch.Tensor) and example.is_floating_point()
        held = self._held_at(str(value.node.target)) if value.node.op == "get_attr" else None
        if not floating or (value.node.op == "get_attr" and not isinstance(held, nn.Parameter)):
            return value
        if again or value.node not in self._detached:
            detached = fx.Tracer.create_proxy(self._tracer, "call_method", "detach", (value,), {})
            detached.node.meta["value"] = example.detach()
            self._detached[value.node] = self._detached[detached.node] = detached
        return self._detached[value.node]
