"""Numbers of tensors where Python, or an operator, wants numbers: each is asked in every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphgrow.capture.stand_ins.proxies import ValueProxy
from graphgrow.capture.tracing.by_values import Holder, ValuesError

_MOST = 256  # numbers of one tensor that are nodes


def numbers_asked(
    tracer: Holder, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments with the number of each integer tensor without axes in its place; None where there is none.

    It is what torch does by itself where an operator takes sizes, places and counts: `x[:, :n]`, `torch.arange(n)`. The
    number is known where the forward has made the tensor of numbers, as `torch.IntTensor([8])[0]`.
    """
    found: list[Any] = []

    def asked(item: Any) -> Any:
        if not _is_integer(item):
            return item
        known = isinstance(item, torch.Tensor)
        found.append(item.item() if known else tracer.create_proxy("call_method", "item", (item,), {}))
        return found[-1]

    kept = args[:1] if kind == "call_method" else ()  # the tensor whose method it is
    given = fx.node.map_aggregate((args[len(kept) :], kwargs), asked)
    return ((*kept, *given[0]), dict(given[1])) if found else None


def numbers_listed(tensor: Any) -> Any:
    """What `tolist()` returns, each number asked in every call; there are as many as on the example.

    Raises:
        ValuesError: if there are more than a graph can hold, or none is known.
    """
    if tensor.example.numel() > _MOST:
        raise ValuesError(f"`tolist` of {tensor.example.numel()} numbers: a graph holds up to {_MOST} one by one")
    return [numbers_listed(tensor[i]) for i in range(len(tensor))] if tensor.example.dim() else tensor.item()


def _is_integer(item: Any) -> bool:
    example = item.example if isinstance(item, ValueProxy) else item
    kind = example.dtype if isinstance(example, torch.Tensor) and not example.dim() else torch.bool
    return not (kind.is_floating_point or kind.is_complex or kind is torch.bool)
