"""The dtypes that a forward reads off its tensors, seen by a tracer, so that the graph follows when they are cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import fx, nn

from graphgrow.capture.stand_ins.proxies import holds_proxy

_LIMITS = ("finfo", "iinfo")  # classes of torch, which would take a proxy for the dtype itself
_NAMED = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip
OF_PYTHON: dict[Any, torch.dtype] = {
    bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128,
}  # fmt: skip
"""What torch takes a class of Python's for, in `torch.ones(n, n, dtype=bool)` and `x.to(float)`."""

_LISTED = ("named_parameters", "named_buffers")  # on which `parameters()` and `buffers()` rest


class Recorder(Protocol):
    """What a tracer offers here.

    Attributes:
        running: whether it runs an operator on examples just now.
    """

    running: bool

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Proxy:
        """Record one operator."""
        ...

    def held(self, tensor: Any) -> Any:
        """The proxy of a tensor of the model's, and anything else as it is."""
        ...


@contextmanager
def dtypes_seen(tracer: Recorder) -> Iterator[None]:
    """Record torch.finfo(x.dtype), and hand out proxies in next(self.parameters()), whose dtype is asked for."""
    limits = {name: getattr(torch, name) for name in _LIMITS}
    listed = {name: getattr(nn.Module, name) for name in _LISTED}
    for name, original in limits.items():
        setattr(torch, name, _limits(tracer, original))
    for name, original in listed.items():
        setattr(nn.Module, name, _listed(tracer, original))
    try:
        yield
    finally:
        for holder, before in ((torch, limits), (nn.Module, listed)):
            for name, original in before.items():
                setattr(holder, name, original)


def named_type(example: torch.Tensor, device: str) -> str:
    """What `x.type()` is of a tensor whose example is on the meta device, and which itself lies on another.

    Args:
        example: of the tensor.
        device: the type of device that the model is on; empty where it is on several.
    """
    where = "torch." if device in ("", "cpu") else f"torch.{device}."
    return str(example.type()).replace("torch.meta.", where)


def cast_by_name(args: tuple[Any, ...], device: str) -> tuple[str, tuple[Any, ...]]:
    """The method that casts as `x.type(name)` does, and its arguments: names are of no tensor on the meta device.

    The name is that of another tensor's type, `y.type()`, or a literal for the model's own device; a class of torch's
    (`torch.LongTensor`) stands for its name.
    """
    tensor, name, *rest = args
    node = name.node if isinstance(name, fx.Proxy) else None
    if node is not None and node.target == "type" and len(node.args) == 1:
        (other,) = node.all_input_nodes
        return "type_as", (tensor, fx.Proxy(other, name.tracer))
    if type(name) is type(torch.LongTensor):
        name = f"{name.__module__}.{name.__name__}"
    wanted = name if isinstance(name, str) else ""
    for dtype in _NAMED:
        if wanted == named_type(torch.empty(0, dtype=dtype, device="meta"), device):
            return "to", (tensor, dtype)
    return "type", (tensor, name, *rest)


def _limits(tracer: Recorder, original: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if tracer.running or not holds_proxy((args, kwargs)):
            return original(*args, **kwargs)
        return tracer.create_proxy("call_function", original, args, kwargs)

    return call


def _listed(tracer: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    def tensors(module: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for name, tensor in original(module, *args, **kwargs):
            yield name, tracer.held(tensor)

    return tensors
