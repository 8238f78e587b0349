"""`self.buffer = value` in a forward: torch takes tensors alone there; the graph stores it at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import fx, nn

from graphgrow.capture.graphs.writes import storages_of
from graphgrow.errors import CaptureError


class Holder(Protocol):
    """What a tracer offers here.

    Attributes:
        assigned: by name of a buffer, what the forward has put in its place.
    """

    assigned: dict[str, fx.Proxy]

    def path_of_module(self, mod: nn.Module) -> str:
        """Where the model holds a module."""

    def is_held(self, tensor: torch.Tensor) -> bool:
        """Whether the model holds a tensor."""

    def held_at(self, path: str) -> Any:
        """What the model holds at a path."""

    def example_of(self, value: Any) -> Any:
        """The example of a tensor of the model's."""

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Proxy:
        """Record one operator."""


@contextmanager
def assignments_seen(tracer: Holder) -> Iterator[None]:
    """While inside, keep what the forward assigns to buffers.

    Raises:
        CaptureError: if one of them holds no tensor before.
    """
    original = nn.Module.__setattr__

    def assign(module: nn.Module, name: str, value: Any) -> None:
        if not isinstance(value, fx.Proxy) or name not in module._buffers:  # a parameter torch itself refuses
            original(module, name, value)
            return
        path = ".".join(filter(None, (tracer.path_of_module(module), name)))
        present, new = module._buffers.get(name), value.node.meta["value"]
        if present is None or not tracer.is_held(present):
            raise CaptureError(f"the forward fills `{path}`, which holds no tensor before")
        if storages_of(new) != storages_of(tracer.example_of(present)):
            tracer.assigned[path] = value

    nn.Module.__setattr__ = assign  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.__setattr__ = original  # type: ignore[method-assign]


def store_assigned(tracer: Holder, graph: fx.Graph) -> None:
    """Write what the forward put in the place of buffers into them, when everything else is done.

    What reads such a buffer reads a clone: a backward pass may need the numbers that it held before.
    """
    end = next(iter(reversed(graph.nodes)))
    for node in [node for node in graph.nodes if node.op == "get_attr" and node.target in tracer.assigned]:
        with graph.inserting_after(node):
            clone = graph.call_method("clone", (node,))
        clone.meta = {**node.meta, "value": node.meta["value"].clone()}
        node.replace_all_uses_with(clone, lambda user, clone=clone: user is not clone)
    with graph.inserting_before(end):
        for path, value in tracer.assigned.items():
            held, new = tracer.held_at(path), value.node.meta["value"]
            if (held.shape, held.dtype) != (new.shape, new.dtype):
                continue  # a table that fits the input: made anew in each call
            buffer = tracer.create_proxy("get_attr", path, (), {})
            detached = tracer.create_proxy("call_method", "detach", (value,), {})
            tracer.create_proxy("call_method", "copy_", (buffer, detached), {})
