"""A graph module over shallow copies of what its graph calls, with the modes of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from graphgrow.capture.graphs.functional import raise_functional
from graphgrow.capture.graphs.spelling import spell
from graphgrow.ir.editor import rebuild

_BOOKKEEPING = "_is_hf_initialized"  # a mark that transformers leaves on modules while it makes them


def assemble(model: nn.Module, graph: fx.Graph, constants: Mapping[str, Any]) -> fx.GraphModule:
    """The graph module of a captured graph.

    Args:
        model: where the targets of the graph are looked up.
        graph: becomes the module's own.
        constants: targets that the model does not hold.
    """
    spell(graph)
    raise_functional(graph, model)
    module = rebuild(graph, model, dict(constants), type(model).__name__)
    _copy_modes(model, module)
    return module


def _copy_modes(model: nn.Module, module: fx.GraphModule) -> None:
    """Give every module of the graph the mode of its original."""
    modes = {path: original.training for path, original in model.named_modules(remove_duplicate=False)}
    for path, mine in module.named_modules(remove_duplicate=False):
        mine.training = modes.setdefault(path, modes[path.rpartition(".")[0]])
        mine.__dict__.pop(_BOOKKEEPING, None)
