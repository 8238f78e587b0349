"""How two layers differ; where they do not, each call of the one gives what the other gives."""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch
from torch import nn

from graphgrow.ir.bits import same_bits

_STORES = ("_parameters", "_buffers", "_modules")
_PLAIN = (int, float, complex, str, bytes, range, slice, torch.dtype, torch.device, torch.memory_format)
_SHOWN = (*_PLAIN, list, tuple, dict, set, frozenset, type(None))


def layers_apart(mine: nn.Module, theirs: nn.Module, there: str = "in the other", modes: bool = True) -> str:
    """The first difference of two layers, in words; empty where there is none.

    Classes, attributes (in objects and lists that they hold, too), names and bits of tensors, and the parts likewise.
    Hooks are not compared. What is of no known kind differs, unless it is one object.

    Args:
        mine: the one.
        theirs: the other.
        there: where the other one is.
        modes: whether train and eval mode count as well.
    """
    if mine is theirs:
        return ""
    if type(mine) is not type(theirs):
        return f"it is a {type(theirs).__name__} {there}, not a {type(mine).__name__}"
    first, second = (
        {k: v for k, v in vars(m).items() if k not in _STORES and "hooks" not in k and (modes or k != "training")}
        for m in (mine, theirs)
    )
    for name in (*first, *(second.keys() - first.keys())):
        if name not in first or name not in second:
            return f"its `{name}` is there in one of them alone"
        if not _same(first[name], second[name]):
            return _in_words(name, first[name], second[name], there)
    for store in ("_parameters", "_buffers"):
        held, others = getattr(mine, store), getattr(theirs, store)
        if held.keys() != others.keys():
            return f"its `{min(held.keys() ^ others.keys())}` is there in one of them alone"
        for name, tensor in held.items():
            apart = tensors_apart(tensor, others[name], there)
            if apart:
                return f"its `{name}` {apart}"
    if mine._modules.keys() != theirs._modules.keys():
        return f"its `{min(mine._modules.keys() ^ theirs._modules.keys())}` is there in one of them alone"
    for name, part in mine._modules.items():
        apart = _parts_apart(part, theirs._modules[name], there, modes)
        if apart:
            return f"in its `{name}`, {apart}"
    return ""


def tensors_apart(mine: Any, theirs: Any, there: str) -> str:
    """How two tensors differ, or whatever stands in their place; empty where they do not."""
    if mine is theirs:
        return ""
    if not (isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor)):
        return f"is {_kind(theirs)} {there}, not {_kind(mine)}"
    if (mine.shape, mine.dtype, mine.device) != (theirs.shape, theirs.dtype, theirs.device):
        return f"is {_kind(theirs)} {there}, not {_kind(mine)}"
    return "" if same_bits(mine, theirs) else f"has other values {there}"


def _parts_apart(mine: nn.Module | None, theirs: nn.Module | None, there: str, modes: bool) -> str:
    if mine is None or theirs is None:
        return "" if mine is theirs else "a part is there in one of them alone"
    return layers_apart(mine, theirs, there, modes)


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return str(value)
    place = "" if value.device.type == "cpu" else f" on {value.device}"
    return f"{value.dtype} of {tuple(value.shape)}{place}"


def _in_words(name: str, mine: Any, theirs: Any, there: str) -> str:
    if isinstance(mine, _SHOWN) and isinstance(theirs, _SHOWN):
        return f"its `{name}` is {theirs!s:.60} {there}, not {mine!s:.60}"
    return f"its `{name}`, of {type(mine).__name__}, is another one {there}"


def _same(a: Any, b: Any, within: tuple[int, ...] = ()) -> bool:
    """Whether two attributes hold the same: one object, equal plain values, or objects that hold the same."""
    if a is b or id(a) in within:
        return True
    if type(a) is not type(b):
        return False
    inside = (*within, id(a))
    if isinstance(a, torch.Tensor):
        return same_bits(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y, inside) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and _same_items(a, b, inside)
    if isinstance(a, weakref.ref):
        return _same(a(), b(), inside)
    if isinstance(a, types.MethodType):
        return a.__func__ is b.__func__
    if isinstance(a, (set, frozenset)):
        return all(isinstance(item, _PLAIN) for item in a) and a == b
    if isinstance(a, _PLAIN):
        return bool(a == b)
    return _holds_data(a) and vars(a).keys() == vars(b).keys() and _same_items(vars(a), vars(b), inside)


def _same_items(a: dict[Any, Any], b: dict[Any, Any], within: tuple[int, ...]) -> bool:
    return all(_same(value, b[key], within) for key, value in a.items())


def _holds_data(value: Any) -> bool:
    """Whether an object is what its attributes are: a configuration, say; no module or function, nothing from C."""
    kind = type(value)
    if kind is types.SimpleNamespace:
        return True
    more = {"__reduce__", "__reduce_ex__", "__slots__"}  # it may hold what `vars` does not show
    plain = not any(more & vars(base).keys() for base in kind.__mro__[:-1])
    held = isinstance(getattr(value, "__dict__", None), dict)
    return plain and held and not callable(value) and not isinstance(value, nn.Module)
