"""Layers that Dynamo does not look into: each call of one becomes a node that names the layer.

Dynamo inlines every module down to functions over parameters. Layers are wanted as layers, so that names, modes and
restated sizes stay with them: while a model is recorded, their forwards are exchanged for a function that Dynamo puts
into its graph as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from graphgrow.capture.model.parametrised import is_parametrised
from graphgrow.capture.stand_ins.expansions import expansion_of
from graphgrow.errors import CaptureError
from graphgrow.ops.registry import module_rule, own_functions

_PRESENT: list[dict[str, nn.Module]] = []  # the layers of the model that is being recorded, by path
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")


def layer_call(path: str, *args: Any, **kwargs: Any) -> Any:
    """Stands in Dynamo's graph for one call of the layer at `path`; runs on fake tensors, for their shapes alone."""
    mode = torch._guards.detect_fake_mode((args, kwargs))
    if mode is None:
        raise CaptureError(f"the layer `{path}` was called without a tensor while it was recorded; mark it as no leaf")
    layer = _PRESENT[-1][path]

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor, static_shapes=True)

    tensors = {name: fake(t) for name, t in [*layer.named_parameters(), *layer.named_buffers()]}
    stand_in = layer.__dict__.pop("forward")
    try:
        return torch.func.functional_call(layer, tensors, args, kwargs)
    finally:
        layer.__dict__["forward"] = stand_in


@contextmanager
def closed_layers(model: nn.Module, leaves: Sequence[type[nn.Module] | str] = ()) -> Iterator[None]:
    """Close the layers of a model: those with a rule, and those that the user asks for; functions with one likewise.

    Composite layers of torch.nn are written out as their parts. The hooks of a closed layer are off meanwhile, since
    the layer of the graph has them too.
    """
    torch._dynamo.allow_in_graph(layer_call)  # type: ignore[no-untyped-call]
    classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))
    closed: dict[str, nn.Module] = {}
    exchanged: list[tuple[nn.Module, dict[str, Any]]] = []
    for path, part in model.named_modules():
        if part is model or any(path.startswith(f"{outer}.") for outer in closed):
            continue
        expand = expansion_of(type(part))
        if is_parametrised(part) and path not in leaves:
            continue
        if isinstance(part, classes) or path in leaves or module_rule(part) is not None:
            closed[path] = part
            exchanged.append((part, _exchange(part, _calling(path), without_hooks=True)))
        elif expand is not None:
            exchanged.append((part, _exchange(part, _expanding(expand, part), without_hooks=False)))
    _PRESENT.append(closed)
    allowed = torch._dynamo.trace_rules._allowed_callable_ids()
    functions = [function for function in own_functions() if id(function) not in allowed]
    try:
        for function in functions:
            torch._dynamo.allow_in_graph(function)  # type: ignore[no-untyped-call]
        yield
    finally:
        allowed.difference_update(map(id, functions))
        _PRESENT.pop()
        for part, before in exchanged:
            part.__dict__.pop("forward", None)
            part.__dict__.update(before)


def _exchange(part: nn.Module, forward: Callable[..., Any], without_hooks: bool) -> dict[str, Any]:
    """Give a module another forward; what its own dictionary held before, in the places that change."""
    names = ("forward", *(_HOOKS if without_hooks else ()))
    before = {name: part.__dict__[name] for name in names if name in part.__dict__}
    for name in _HOOKS if without_hooks else ():
        part.__dict__[name] = type(before[name])()
    part.__dict__["forward"] = forward
    return before


def _calling(path: str) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return layer_call(path, *args, **kwargs)

    return forward


def _expanding(expand: Callable[..., Any], part: nn.Module) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return expand(part, *args, **kwargs)

    return forward
