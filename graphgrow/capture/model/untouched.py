"""Leaving a model as it was: whatever its forward does to it while it is captured is put back."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphgrow.capture.model.compiled import dynamo_is_loaded
from graphgrow.ir.bits import whole

_STORES = ("_parameters", "_buffers", "_modules")
_ASIDE = (*_STORES, "training")
_CONTAINERS = (list, dict, set)
_PLAIN = frozenset((bool, int, float, str, type(None)))  # what cannot be changed in place


@contextmanager
def untouched(model: nn.Module) -> Iterator[State]:
    """Whatever happens to a model within, put it back: buffers to the bit, attributes, modes, and random numbers.

    Parameters are for `parameters_kept`, where the model runs.
    """
    state = State(model)
    with _random_numbers_kept(model):
        try:
            yield state
        finally:
            state.restore()


@contextmanager
def parameters_kept(model: nn.Module) -> Iterator[None]:
    """Put parameters back that operators within write into; only those are copied."""
    with _for_now(model) as parameters:
        try:
            yield
        finally:
            parameters.restore()


class State:
    """What a model holds at one moment, its parameters' numbers aside.

    Args:
        model: whose modules, attributes and buffers are remembered.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.named_modules())
        self._attributes = {id(module): dict(module.__dict__) for _, module in self._modules}
        self._contents: list[tuple[Any, Any]] = []  # containers, and what they held
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        seen: set[int] = set()
        for _, module in self._modules:
            for name, value in module.__dict__.items():
                if isinstance(value, _CONTAINERS) and id(value) not in seen:
                    seen.add(id(value))
                    self._contents.append((value, _plain(value)))
                values = value.values() if name == "_buffers" else (value,)
                for tensor in values if name not in ("_parameters", "_modules") else ():
                    if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
                        seen.add(id(tensor))
                        self._tensors.append((tensor, tensor.detach().clone()))
        self._held = {id(container): content for container, content in self._contents}
        self._copies = {id(tensor): copied for tensor, copied in self._tensors}
        self._by_path = dict(self._modules)

    def changed(self) -> list[str]:
        """Paths of attributes and buffers that hold something else by now, in the order of the modules."""
        names: list[str] = []
        before, tensors = self._held, self._copies
        for path, module in self._modules:
            now, then = module.__dict__, self._attributes[id(module)]
            pairs = [(now, then, _ASIDE), *((now[store], before[id(then[store])], ()) for store in _STORES)]
            for held, old, aside in pairs:
                for name in old if held.keys() == old.keys() else {**old, **held}:
                    one, other = old.get(name, self), held.get(name, self)
                    plain = one is other and type(one) in _PLAIN
                    if not plain and name not in aside and not _same(one, other, before, tensors):
                        names.append(f"{path}.{name}".lstrip("."))
        return names

    def before(self, path: str) -> torch.Tensor | None:
        """What a buffer held; None where there was none."""
        owner, _, name = path.rpartition(".")
        buffers = self._attributes[id(self._by_path[owner])]["_buffers"]
        return self._copies.get(id(self._held[id(buffers)].get(name)))

    def restore(self) -> None:
        """Put everything back."""
        for container, content in self._contents:
            if not _holds_still(container, content):
                _fill(container, content)
        for _, module in self._modules:
            module.__dict__.clear()
            module.__dict__.update(self._attributes[id(module)])
        with torch.no_grad():
            for tensor, copied in self._tensors:
                if not tensor.is_meta and not torch.equal(whole(tensor), whole(copied)):
                    tensor.detach().copy_(copied)


def _plain(container: Any) -> Any:
    """A container's items in one of Python's own, past whatever methods its class has; the items are the same."""
    if isinstance(container, OrderedDict):
        return dict(OrderedDict.items(container))
    kind = _kind(container)
    return dict(dict.items(container)) if kind is dict else kind.copy(container)


def _fill(container: Any, content: Any) -> None:
    """Let a container hold these items again, even one whose class refuses to be changed."""
    kind = OrderedDict if isinstance(container, OrderedDict) else _kind(container)
    kind.clear(container)
    if isinstance(container, dict):
        for key, item in content.items():
            kind.__setitem__(container, key, item)
    elif isinstance(container, list):
        list.extend(container, content)
    else:
        set.update(container, content)


def _holds_still(container: Any, content: Any) -> bool:
    """Whether the very same items are in a container, in the same order."""
    now = _plain(container)
    if isinstance(now, set) or len(now) != len(content):
        return bool(now == content)
    if isinstance(now, dict):
        now, content = [*now.keys(), *now.values()], [*content.keys(), *content.values()]
    return all(a is b for a, b in zip(now, content, strict=True))


def _kind(container: Any) -> Any:
    return next(kind for kind in _CONTAINERS if isinstance(container, kind))


def _same(old: Any, new: Any, containers: dict[int, Any], tensors: dict[int, torch.Tensor]) -> bool:
    """Whether an attribute holds the very same object, with the same numbers or items in it."""
    if old is not new:
        return isinstance(old, (bool, int, float, str)) and type(old) is type(new) and old == new
    if isinstance(old, torch.Tensor) and id(old) in tensors and not old.is_meta:
        return torch.equal(whole(old), whole(tensors[id(old)]))
    if isinstance(old, _CONTAINERS) and id(old) in containers:
        before = containers[id(old)]
        if len(old) != len(before) or not before:
            return not old
        pairs = (
            zip(old.values(), before.values(), strict=True) if isinstance(old, dict) else zip(old, before, strict=True)
        )
        return all(a is b for a, b in pairs)
    return True


class _WatchedParameters(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Copies a parameter when an operator is about to write into it, so that most are never copied.

    Torch keeps Dynamo away from a mode by a wrapper that loads it, which takes longer than most traces. `_for_now` has
    the wrapper where Dynamo is there already.
    """

    supports_higher_order_operators = True  # these have no schema, and write into nothing

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parameters = [(parameter, parameter.detach()) for parameter in model.parameters()]
        self._by_storage = {_storage(kept): kept for _, kept in self._parameters}
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            for tensor in pytree.tree_leaves((args, kwargs)):
                kept = self._by_storage.pop(_storage(tensor), None) if isinstance(tensor, torch.Tensor) else None
                if kept is not None:
                    self._copies.append((kept, kept.clone()))
        return func(*args, **kwargs)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def restore(self) -> None:
        """Put the written ones back, and give each parameter the memory that it had."""
        with torch.no_grad():
            for kept, copied in self._copies:
                kept.copy_(copied)
            for parameter, kept in self._parameters:
                if _place(parameter) != _place(kept):
                    parameter.data = kept


class _HiddenFromDynamo(_WatchedParameters):  # type: ignore[no-untyped-call]
    """The same with torch's wrapper."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True


def _for_now(model: nn.Module) -> _WatchedParameters:
    return (_HiddenFromDynamo if dynamo_is_loaded() else _WatchedParameters)(model)


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return _storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


@contextmanager
def _random_numbers_kept(model: nn.Module) -> Iterator[None]:
    """Torch's generators of the model's devices, Python's and numpy's, as they were."""
    tensors = (*model.parameters(), *model.buffers())
    devices = {tensor.device for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
    numpy: Any = sys.modules.get("numpy")
    python, arrays = random.getstate(), numpy.random.get_state() if numpy else None
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for kind in {device.type for device in devices}:
            indices = [device.index or 0 for device in devices if device.type == kind]
            stack.enter_context(torch.random.fork_rng(devices=indices, device_type=kind))
        try:
            yield
        finally:
            random.setstate(python)
            if numpy:
                numpy.random.set_state(arrays)
