"""Answers of torch's operators on the meta device: equal forms of arguments give equal forms of results.

A network is a few blocks many times over, and many of torch's operators are written in Python on the meta device. So
what one gave is kept by the form of what it was given, and made anew from that, where it is new tensors. A network
shares what is kept with the trace that it comes from, and with all that grows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_PLAIN = frozenset(
    (int, float, bool, str, complex, type(None), type(...), torch.dtype, torch.device, torch.memory_format, torch.Size)
)
_STORES = ("_parameters", "_buffers", "training")
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {*_STORES}
_ASIDE = _OF_EVERY_MODULE | {"_flat_weight_refs"}  # by which recurrent layers refer to tensors that they hold as well
_TORCHS = ("torch.", "_operator")
_MOST = 4096  # forms that are kept; a search walks through networks without end
_REGISTERED = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)  # some are the user's, under names of torch's


class _Formless(Exception):
    """Something whose form does not say all that an operator may find in it."""


@dataclass(frozen=True)
class _New:
    """A tensor on memory of its own.

    Attributes:
        size: its shape.
        stride: of its entries.
        dtype: of them.
    """

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def made(self) -> torch.Tensor:
        """One like it."""
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


_Result = _New | tuple["_Result", ...]


class Answers:
    """What operators gave so far, by the form of the call. Copies and pickles begin with nothing."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Result] = {}

    def __reduce__(self) -> tuple[type[Answers], tuple[()]]:
        return Answers, ()

    def of(self, called: Any, args: Any, kwargs: Any, run: Callable[[], Any]) -> Any:
        """What an operator returns for these arguments: run once for each form of them.

        It is run each time where it may find more in its arguments than their form (numbers, a class of the user's),
        where it is not torch's own, and where it returns a view, writes, or returns anything but tensors in tuples.

        Args:
            called: a function, the name of a method, or a layer.
            args: as they are given; tensors are on the meta device.
            kwargs: likewise.
            run: makes the call.
        """
        tensors: list[torch.Tensor] = []
        try:
            key = (torch.get_default_dtype(), _called(called, tensors), _form((args, kwargs), tensors))
        except _Formless:
            return run()
        known = self._known.get(key)
        if known is not None:
            return _made(known)
        before = [tensor._version for tensor in tensors]
        result = run()
        if tensors and before == [tensor._version for tensor in tensors]:
            found = _new(result, {tensor.untyped_storage()._cdata for tensor in tensors})
            if found is not None:
                if len(self._known) >= _MOST:
                    self._known = {}
                self._known[key] = found
        return result


def _called(called: Any, tensors: list[torch.Tensor]) -> Hashable:
    """A function of torch's, a method, or what a layer of torch's is made of; its tensors are put into the list."""
    if isinstance(called, str):
        return called
    if isinstance(called, nn.Module):
        if not type(called).__module__.startswith("torch.nn.modules.") or called._modules:
            raise _Formless
        own = {name: value for name, value in vars(called).items() if name not in _ASIDE}
        return type(called), type(called).forward, _form(own, tensors)
    module = str(getattr(called, "__module__", None) or "torch")
    if isinstance(called, _REGISTERED) or (module != "torch" and not module.startswith(_TORCHS)):
        raise _Formless
    return called  # type: ignore[no-any-return]  # a function


def _form(item: Any, tensors: list[torch.Tensor]) -> Hashable:
    """All that tells an argument from others, its numbers aside; tensors within it are put into the list."""
    kind = type(item)
    if kind in (torch.Tensor, nn.Parameter):
        if not item.is_meta or item.layout is not torch.strided or item.is_conj() or item.is_neg():
            raise _Formless
        tensors.append(item)
        return kind, item.dtype, item.shape, item.stride(), item.storage_offset()
    if kind in _PLAIN:
        return kind, item
    if isinstance(item, (tuple, list)):
        return kind, *(_form(inner, tensors) for inner in item)
    if isinstance(item, dict):
        return kind, *((name, _form(inner, tensors)) for name, inner in item.items())
    if kind is slice:
        return kind, *(_form(inner, tensors) for inner in (item.start, item.stop, item.step))
    raise _Formless


def _made(result: _Result) -> Any:
    return result.made() if isinstance(result, _New) else tuple(map(_made, result))


def _new(result: Any, taken: set[int]) -> _Result | None:
    """What a result is, where that is tensors, each on memory of its own, and no more of it than its entries need.

    Args:
        result: of an operator.
        taken: the storages of what it was given; those of the result are put in.
    """
    if type(result) is tuple:
        parts = [_new(item, taken) for item in result]
        return None if None in parts else tuple(part for part in parts if part is not None)
    if type(result) is not torch.Tensor or not result.is_meta or result.layout is not torch.strided:
        return None
    if result.is_conj() or result.is_neg() or result.storage_offset() or result.requires_grad:
        return None
    storage, found = result.untyped_storage(), _New(result.shape, result.stride(), result.dtype)
    if storage._cdata in taken or storage.nbytes() != found.made().untyped_storage().nbytes():
        return None
    taken.add(storage._cdata)
    return found
