"""A graph module that writes its code when it is first run or read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import fx, nn

from graphgrow.ir.rows import Row, from_rows, to_rows

_WRITTEN = ("_code", "_lineno_map", "_prologue_start")


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

    def get_submodule(self, target: str) -> nn.Module:
        """As torch has it, but straight through the modules: a graph looks its own up for each node, time and again.

        Raises:
            AttributeError: if there is none at that path.
        """
        found: nn.Module | None = self
        for name in target.split(".") if target else ():
            found = found._modules.get(name) if found is not None else None
        return super().get_submodule(target) if found is None else found  # which tells what is missing

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """As torch has it, but complex tensors stay complex: a cast to a real dtype would drop their imaginary part.

        A model's own constants (rotary frequencies, say) are attributes, which `model.to(torch.bfloat16)` passes by;
        the graph holds them as buffers, so that they move with it.
        """

        def kept(tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.is_complex():
                return fn(tensor)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Casting complex values to real")
                applied = fn(tensor)
            return applied if applied.is_complex() else tensor.to(applied.device)

        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getattr__(self, name: str) -> Any:
        """What nn.Module finds; the code's parts, which fx keeps as attributes, are written first."""
        if name in _WRITTEN and "_graph" in self.__dict__:
            self.recompile()
            return self.__dict__[name]
        return super().__getattr__(name)

    def __reduce__(self) -> Any:
        """The graph itself, node by node; all else as it stands in the module."""
        state = {name: item for name, item in self.__dict__.items() if name not in (*_WRITTEN, "_graph", "_late")}
        return _restored, (type(self).__name__, to_rows(self.graph), state)


def _restored(name: str, rows: list[Row], state: dict[str, Any]) -> LateCode:
    holder = nn.Module()
    holder.__dict__.update(state)
    module = LateCode(holder, from_rows(rows), name)
    module.__dict__.update(state)
    return module
