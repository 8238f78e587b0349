"""Train and eval mode, kept alive in a captured graph.

`self.training` is a plain bool while a model is traced. The model is therefore traced in both modes: where the two
graphs differ in nothing but a mode flag, the operator becomes a module, which answers train() and eval().
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.capture.graphs.writes import is_inplace
from graphgrow.layers import CHECKS, ScaledDotProductAttention, set_item

EFFECTS = CHECKS | {set_item}

_DROPOUTS: dict[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
    torch.dropout: nn.Dropout,
}


def prune(graph: fx.Graph, root: nn.Module) -> None:
    """Erase nodes that nothing reads and that do nothing besides: what a mode's checks of its fast paths leave."""
    for node in reversed(list(graph.nodes)):
        idle = node.op == "get_attr" or (node.op in ("call_function", "call_method") and node.target not in EFFECTS)
        if idle and not node.users and not is_inplace(node, root):
            graph.erase_node(node)


def same_structure(train: fx.Graph, evaluation: fx.Graph) -> bool:
    """Whether two graphs of one model agree node by node, mode flags aside."""
    if len(train.nodes) != len(evaluation.nodes):
        return False
    mine, theirs = _numbered(train), _numbered(evaluation)
    return all(
        (a.op, a.target) == (b.op, b.target)
        and [mine[n] for n in a.all_input_nodes] == [theirs[n] for n in b.all_input_nodes]
        and (_arguments(a, mine) == _arguments(b, theirs) or a.target in _REVIVERS)
        for a, b in zip(train.nodes, evaluation.nodes, strict=True)
    )


def has_mode_flag(node: fx.Node) -> bool:
    """Whether a node calls a function that is given the mode, and for which there is a module that knows it."""
    return node.target in _REVIVERS


def flagged(train: fx.Graph, evaluation: fx.Graph) -> list[fx.Node]:
    """The nodes of a train graph whose mode flag differs from that of the eval graph, which has the same structure."""
    mine, theirs = _numbered(train), _numbered(evaluation)
    pairs = zip(train.nodes, evaluation.nodes, strict=True)
    return [a for a, b in pairs if _arguments(a, mine) != _arguments(b, theirs)]


def revive(nodes: Iterable[fx.Node], add: Callable[[str, nn.Module], str]) -> None:
    """Put modules in the place of functions with a mode flag.

    Args:
        nodes: of a train graph, which is changed.
        add: registers a new module under a proposed path and returns the path.
    """
    for node in nodes:
        module, inputs = _REVIVERS[node.target](node)
        path = add(f"{node.name}_live", module)
        with node.graph.inserting_before(node):
            live = node.graph.call_module(path, tuple(inputs))
        live.meta = dict(node.meta)
        node.replace_all_uses_with(live)
        node.graph.erase_node(node)


def _numbered(graph: fx.Graph) -> dict[fx.Node, int]:
    return {node: number for number, node in enumerate(graph.nodes)}


def _arguments(node: fx.Node, numbers: dict[fx.Node, int]) -> str:
    """The arguments as text, nodes by their place: names may differ where something was pruned."""
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda used: f"%{numbers[used]}")
    return f"{args!r} {kwargs!r}"


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _live_dropout(node: fx.Node) -> tuple[nn.Module, list[Any]]:
    return _DROPOUTS[node.target](_argument(node, 1, "p", 0.5)), [_argument(node, 0, "input", None)]


def _live_attention(node: fx.Node) -> tuple[nn.Module, list[Any]]:
    module = ScaledDotProductAttention(
        dropout_p=_argument(node, 4, "dropout_p", 0.0),
        is_causal=_argument(node, 5, "is_causal", False),
        scale=_argument(node, 6, "scale", None),
        enable_gqa=_argument(node, 7, "enable_gqa", False),
    )
    names = ("query", "key", "value", "attn_mask")
    return module, [_argument(node, i, name, None) for i, name in enumerate(names)]


_REVIVERS: dict[Any, Callable[[fx.Node], tuple[nn.Module, list[Any]]]] = {
    **dict.fromkeys(_DROPOUTS, _live_dropout),
    F.scaled_dot_product_attention: _live_attention,
}
