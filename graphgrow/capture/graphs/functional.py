"""Functions over a layer's own parameters, `F.linear(x, layer.weight, layer.bias)`, raised to calls of that layer.

Models write them where they hand a layer's parameters on (torchvision's Swin attention does). As calls of layers they
are sites, take blocks beside them, and can be closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from graphgrow.ir.hooks import hook_of
from graphgrow.ir.meta import STACK

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_DEFAULTS: Mapping[str, Any] = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "eps": 1e-5}
_SIGNATURES: Mapping[Callable[..., Any] | str, tuple[tuple[type[nn.Module], ...], tuple[str, ...]]] = {
    F.linear: ((nn.Linear, NonDynamicallyQuantizableLinear), ("input", "weight", "bias")),
    F.conv1d: ((nn.Conv1d,), _CONVOLUTION),
    F.conv2d: ((nn.Conv2d,), _CONVOLUTION),
    F.conv3d: ((nn.Conv3d,), _CONVOLUTION),
    F.layer_norm: ((nn.LayerNorm,), ("input", "normalized_shape", "weight", "bias", "eps")),
}
_TENSORS = ("weight", "bias")


def raise_functional(graph: fx.Graph, model: nn.Module) -> None:
    """Put calls of layers in the place of functions that are given all of a layer's parameters and options, in place.

    By exact class: a subclass may do more. A layer with hooks stays as it is called: they were not called either.

    Args:
        graph: whose nodes have example values.
        model: holds what the graph fetches.
    """
    for node in list(graph.nodes):
        path = _layer_of(node, model)
        if path is None:
            continue
        with graph.inserting_before(node):
            call = graph.call_module(path, (_arguments(node)["input"],))
        call.meta = {
            **node.meta,
            STACK: {**(node.meta.get(STACK) or {}), path: (path, type(model.get_submodule(path)))},
        }
        call.stack_trace = node.stack_trace
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)


def _layer_of(node: fx.Node, model: nn.Module) -> str | None:
    """The path of the layer that computes what a function over its parameters does."""
    signature = _SIGNATURES.get(node.target) if node.op == "call_function" else None
    if signature is None:
        return None
    given = _arguments(node)
    weight = given.get("weight")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or not isinstance(given.get("input"), fx.Node):
        return None
    path, _, field = str(weight.target).rpartition(".")
    if field != "weight" or not path:
        return None
    layer = model.get_submodule(path)
    if type(layer) not in signature[0] or hook_of(layer) or "forward" in vars(layer):
        return None
    return path if _fetched(given, layer, path) and _options(given, layer) else None


def _fetched(given: Mapping[str, Any], layer: nn.Module, path: str) -> bool:
    """Whether the tensors are the layer's, all of them."""
    for name in _TENSORS:
        value, held = given.get(name), layer._parameters.get(name)
        if held is None and value is None:
            continue
        if held is None or not isinstance(value, fx.Node) or (value.op, value.target) != ("get_attr", f"{path}.{name}"):
            return False
    return set(layer._parameters) <= set(_TENSORS)


def _options(given: Mapping[str, Any], layer: nn.Module) -> bool:
    """Whether everything else stands in the layer as it was given."""
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return False
    axes = len(getattr(layer, "kernel_size", ()))
    return all(
        _several(value, axes) == _several(getattr(layer, name), axes)
        for name, value in given.items()
        if name not in ("input", *_TENSORS)
    )


def _several(value: Any, axes: int) -> Any:
    """One number for each axis of a kernel, where torch takes one for all."""
    if isinstance(value, int) and not isinstance(value, bool) and axes:
        return (value,) * axes
    return tuple(value) if isinstance(value, (tuple, list)) else value


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a function by name, defaults included."""
    _, names = _SIGNATURES[node.target]
    given = {name: _DEFAULTS[name] for name in names if name in _DEFAULTS}
    return {**given, **dict(zip(names, node.args, strict=False)), **node.kwargs}
