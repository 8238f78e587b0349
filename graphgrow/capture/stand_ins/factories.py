"""What makes tensors from no tensor of the graph, seen by a tracer: from computed sizes, or from random numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, is_tensor_method_or_property

from graphgrow.capture.graphs.writes import storages_of
from graphgrow.capture.stand_ins.proxies import holds_proxy
from graphgrow.layers import set_item

RANDOM = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli",
    "multinomial", "poisson", "uniform_", "normal_", "bernoulli_", "random_", "exponential_", "geometric_",
    "log_normal_", "cauchy_", "gumbel_softmax", "rrelu",
}  # fmt: skip
_OF_SIZES = ("zeros", "ones", "empty", "full", "eye", "rand", "randn", "randint", "randperm", "normal",
             "broadcast_to", "tile", "reshape", "narrow", "select", "roll", "tril", "triu", "topk", "kthvalue",
             "unflatten", "diagonal", "adaptive_avg_pool1d", "adaptive_max_pool1d", "avg_pool1d",
             "bincount")  # fmt: skip
_FOURIER = tuple(name for name in torch.fft.__all__ if not name.endswith(("freq", "shift")))
_METHODS_OF_SIZES = (
    "view", "reshape", "expand", "repeat", "tile", "broadcast_to", "new_zeros", "new_ones", "new_empty", "new_full",
    "type",
)  # fmt: skip
_POOLING = ("adaptive_avg_pool1d", "adaptive_max_pool1d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
_INDEXED = {"__getitem__": operator.getitem, "__setitem__": set_item}  # torch would look into an index that is a proxy
_GROUPED = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


class Recorder(Protocol):
    """What a tracer offers here.

    Attributes:
        running: whether it runs an operator on examples just now.
        overtaken: storages of the forward's own constants that operators of the graph write into.
    """

    running: bool
    overtaken: set[int]

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Proxy:
        """Record one operator."""
        ...


@contextmanager
def factories_seen(tracer: Recorder) -> Iterator[None]:
    """Record torch.arange(n), torch.zeros((b, 1)), table.expand(b, -1) with computed sizes, and torch.rand with any."""
    patched: list[tuple[Any, str, str]] = [(torch, name, "call_function") for name in _OF_SIZES]
    patched += [(torch.Tensor, name, "call_method") for name in _METHODS_OF_SIZES]
    patched += [(torch.fft, name, "call_function") for name in _FOURIER]
    patched += [(F, name, "call_function") for name in _POOLING]
    patched += [(F, name, "call_function") for name in _GROUPED]  # a convolution with as many groups as rows
    before = [(holder, name, vars(holder).get(name)) for holder, name, _ in patched]
    for holder, name, kind in patched:  # torch refuses a first size that is no number, and reads those in a tuple
        setattr(holder, name, _watching(tracer, kind, name, getattr(holder, name)))
    try:
        with _Factories(tracer):
            yield
    finally:
        for holder, name, original in before:
            if original is None:
                delattr(holder, name)
            else:
                setattr(holder, name, original)


def _watching(tracer: Recorder, kind: str, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if tracer.running or not holds_proxy((args, kwargs)):
            return original(*args, **kwargs)
        return tracer.create_proxy(kind, name if kind == "call_method" else original, args, kwargs)

    return call


class _Factories(TorchFunctionMode):
    def __init__(self, tracer: Recorder) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._tracer.running:
            return func(*args, **kwargs)
        if name in _INDEXED and isinstance(args[0], torch.Tensor) and holds_proxy(args):
            return self._tracer.create_proxy("call_function", _INDEXED[name], args, kwargs)
        if any(issubclass(kind, fx.Proxy) for kind in types):
            return func(*args, **kwargs)
        overtaken = self._tracer.overtaken and self._tracer.overtaken & storages_of((args, kwargs))
        if name == "__get__" or not (name in RANDOM or overtaken or holds_proxy((args, kwargs))):
            return func(*args, **kwargs)
        if is_tensor_method_or_property(func):
            return self._tracer.create_proxy("call_method", name, args, kwargs)
        return self._tracer.create_proxy("call_function", func, args, kwargs)
