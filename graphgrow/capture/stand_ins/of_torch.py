"""What torch does by itself in a forward and a trace has to see, or to refuse: patched while one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import fx, nn

from graphgrow.capture.stand_ins.proxies import ValueProxy, holds_proxy, reads_values
from graphgrow.errors import CaptureError


@contextmanager
def masks_taken_as_given() -> Iterator[None]:
    """nn.Transformer looks whether a mask happens to be causal; the graph uses the mask, whatever it is."""
    original = nn.modules.transformer._detect_is_causal_mask
    nn.modules.transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        nn.modules.transformer._detect_is_causal_mask = original


@contextmanager
def parameters_of_distributions_unchecked() -> Iterator[None]:
    """torch.distributions looks whether parameters and values are admissible, which no graph can; Dynamo does not."""
    kind = torch.distributions.Distribution
    before = kind._validate_args
    kind.set_default_validate_args(False)
    try:
        yield
    finally:
        kind.set_default_validate_args(before)


@contextmanager
def scripts_open() -> Iterator[None]:
    """A function under `torch.jit.script` is traced as it was written (WaveNet's gates in VITS and WaveGlow)."""
    kind: Any = torch.jit.ScriptFunction
    before = kind.__call__

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        written = getattr(function, "_torchdynamo_inline", None)
        if written is None or not holds_proxy((args, kwargs)):
            return before(function, *args, **kwargs)
        return written(*args, **kwargs)

    kind.__call__ = call
    try:
        yield
    finally:
        kind.__call__ = before


@contextmanager
def variables_are_tensors() -> Iterator[None]:
    """`Variable(x)`, as it was written before torch 0.4, is a detached tensor, and of a proxy its `detach()`."""
    kind: Any = torch.autograd.Variable

    def made(cls: Any, *args: Any, **kwargs: Any) -> Any:
        data = args[0] if args else kwargs.get("data")
        if isinstance(data, ValueProxy):
            return data.detach()
        return torch._C._LegacyVariableBase.__new__(cls, *args, **kwargs)

    kind.__new__ = made
    try:
        yield
    finally:
        del kind.__new__


@contextmanager
def checks_recorded(require: Callable[[fx.Proxy, bool, str], None]) -> Iterator[None]:
    """`torch._check` of values, and all that is made of it, refuses in the graph what it refuses in the model.

    Args:
        require: records that a condition has to come out so, and the error behind the other outcome.
    """
    namespace: Any = torch
    with_error, of_all = namespace._check_with, namespace._check_tensor_all_with

    def check(error_type: type[Exception], condition: Any, message: Callable[[], str] | None = None) -> None:
        if not isinstance(condition, ValueProxy):
            with_error(error_type, condition, message)
        elif reads_values(condition):
            words = "a check failed" if message is None else message()
            require(condition, True, f"{error_type.__name__}: {words}")
        else:
            with_error(error_type, bool(condition), message)

    def check_all(error_type: type[Exception], condition: Any, message: Callable[[], str] | None = None) -> None:
        if isinstance(condition, ValueProxy):
            check(error_type, condition.all(), message)
        else:
            of_all(error_type, condition, message)

    namespace._check_with, namespace._check_tensor_all_with = check, check_all
    try:
        yield
    finally:
        namespace._check_with, namespace._check_tensor_all_with = with_error, of_all


class Placed(Protocol):
    """What a tracer offers here.

    Attributes:
        running: whether it runs an operator on examples just now.
        device_type: of the model and its inputs; empty where they are on several.
    """

    running: bool
    device_type: str


@contextmanager
def layers_stay(tracer: Placed) -> Iterator[None]:
    """`self.layer.to(x.device)`, `self.norm.float()` do nothing where a layer is there already, and so they shall."""
    move, convert = nn.Module.to, nn.Module._apply

    def plain(value: Any) -> Any:
        known = value.example if isinstance(value, ValueProxy) else value
        if isinstance(known, torch.Tensor) and known.is_meta and tracer.device_type:
            return torch.empty((), dtype=known.dtype, device=tracer.device_type)
        return torch.device(tracer.device_type) if known == torch.device("meta") and tracer.device_type else known

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        return move(module, *map(plain, args), **{name: plain(value) for name, value in kwargs.items()})

    def apply(module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        before, tracer.running = tracer.running, True
        held = [tensor for part in module.modules() for tensor in (*part._parameters.values(), *part._buffers.values())]
        try:
            stays = all(function(tensor) is tensor for tensor in held if tensor is not None)
        finally:
            tracer.running = before
        if not stays:
            raise CaptureError(
                f"the forward moves or casts {type(module).__name__}, a part of the model; do it before the capture"
            )
        return module

    nn.Module.to, nn.Module._apply = to, apply  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.to, nn.Module._apply = move, convert  # type: ignore[method-assign]


@contextmanager
def wrapped_functions_open() -> Iterator[None]:
    """Trace into functions that a library marked with torch.fx.wrap, whose bodies hold axes that could grow.

    They are marked because plain fx stumbles over `len` and shapes in them; proxies with examples do not.
    """
    marked = fx._symbolic_trace._wrapped_fns_to_patch
    before = dict(marked)
    marked.clear()
    try:
        yield
    finally:
        marked.update(before)
