"""A graph module that writes its code when it is first run or read."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx

_WRITTEN = ("_code", "_lineno_map", "_prologue_start")
_WRAPPED = "is_wrapped"  # fx's own mark: the code calls torch.fx.wrap for the function


class LateCode(fx.GraphModule):
    """A graph module without code until somebody asks for it.

    Writing the code takes as long as copying the graph, torch keeps every text for good, and a search makes many
    networks of which it runs few. `forward`, `code`, pickling and copying find the code as that of any other.
    """

    @property
    def forward(self) -> Any:  # type: ignore[override]  # fx puts the written function over it, in a class of its own
        """The function that the graph stands for."""
        self.recompile()
        return self.forward

    def __init__(self, root: Any, graph: fx.Graph, class_name: str = "GraphModule") -> None:
        """A module over a graph; what its nodes call and fetch is looked up in `root`, as in fx.GraphModule."""
        self.__dict__["_late"] = True
        super().__init__(root, graph, class_name)
        self._tracer_cls = None  # unpickled code is traced by fx's own: it needs no examples

    def postpone(self) -> None:
        """Let go of code that is older than the graph; it is written anew when it is asked for."""
        for name in _WRITTEN:
            self.__dict__.pop(name, None)
        type(self).forward = LateCode.forward  # type: ignore[method-assign]

    def recompile(self) -> Any:
        """Write the code now, but for the first call, which fx makes while the module is built."""
        if self.__dict__.pop("_late", False):
            return None
        code = super().recompile()
        if "__call__" in vars(type(self)):  # by which fx prints every error, also one that is expected and handled
            del type(self).__call__
        return code

    def __getattr__(self, name: str) -> Any:
        """What nn.Module finds; the code's parts, which fx keeps as attributes, are written first."""
        if name in _WRITTEN and "_graph" in self.__dict__:
            self.recompile()
            return self.__dict__[name]
        return super().__getattr__(name)

    def __reduce__(self) -> Any:
        """As fx pickles: the code, not the graph, written so that fx can trace it when it is unpickled."""
        with _traceable(self.graph):
            self.recompile()
            pickled = super().__reduce__()
        self.postpone()
        return pickled


@contextmanager
def _traceable(graph: fx.Graph) -> Iterator[None]:
    """Mark what plain fx, given proxies without examples, cannot look into; unmarked again afterwards.

    Annotations that are text stay behind, as fx cannot import those. Functions and classes outside of torch, such as
    the checks of sizes, are wrapped: fx would call them with a proxy.
    """
    texts = {node: node.type for node in graph.nodes if isinstance(node.type, str)}
    opaque = [node for node in graph.nodes if node.op == "call_function" and _foreign(node.target)]
    for node in texts:
        node.type = None
    for node in opaque:
        node.meta[_WRAPPED] = True
    try:
        yield
    finally:
        for node, text in texts.items():
            node.type = text
        for node in opaque:
            del node.meta[_WRAPPED]


def _foreign(target: Any) -> bool:
    kind = isinstance(target, (types.FunctionType, type))
    return kind and str(target.__module__).partition(".")[0] not in ("torch", "builtins")
