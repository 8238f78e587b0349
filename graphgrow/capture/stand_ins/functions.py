"""Functions whose calls a trace takes over: by exchanging their code, which every reference to them leads to.

A function may be known under many names: imports, closures, attributes, entries of a dictionary. All of them hold the
same object, so that its code is the one place where a call can be seen for certain.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.utils import checkpoint

from graphgrow.capture.stand_ins.proxies import holds_proxy
from graphgrow.errors import CaptureError

Seen = Callable[..., Any]
_PLACE = "the function that sees the call"


@contextmanager
def calls_seen(by: Mapping[Any, Callable[[Seen], Seen]]) -> Iterator[None]:
    """While inside, let other functions be called for some.

    Args:
        by: for each Python function, what makes the other from the original one.
    """
    before = {function: function.__code__ for function in by}
    for function, made in by.items():
        original = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        original.__kwdefaults__ = function.__kwdefaults__
        function.__code__ = _calling(made(original), function.__code__)
    try:
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code


def _passing(*args: Any, **kwargs: Any) -> Any:
    seen: Any = "the function that sees the call"
    return seen(*args, **kwargs)


def _calling(seen: Seen, code: types.CodeType) -> types.CodeType:
    """Code that passes all its arguments on; as much of a closure as that in whose place it stands."""
    constants = tuple(seen if constant == _PLACE else constant for constant in _passing.__code__.co_consts)
    return _passing.__code__.replace(co_consts=constants, co_freevars=code.co_freevars, co_name=code.co_name)


# -- what a trace calls otherwise than the model does -------------------------------------------------------------


def _called_at_once(_: Seen) -> Seen:
    """torch.utils.checkpoint.checkpoint computes what its function does, and again on the way back."""

    def call(
        function: Seen, *args: Any, use_reentrant: Any = None, context_fn: Any = None, determinism_check: Any = None,
        debug: Any = None, early_stop: Any = None, preserve_rng_state: Any = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        return function(*args, **kwargs)

    return call


def _called_in_turn(_: Seen) -> Seen:
    def call(functions: Any, segments: int, input: Any, **options: Any) -> Any:
        value = input
        for function in functions.children() if hasattr(functions, "children") else functions:
            value = function(value)
        return value

    return call


def _without_autocast(original: Seen) -> Seen:
    """The dtypes that autocast chooses would not be in the graph: a region that switches it on is refused."""

    def enter(region: Any) -> Any:
        if region._enabled:
            raise CaptureError(AUTOCAST)
        return original(region)

    return enter


def _on_a_device(original: Seen) -> Seen:
    """A region is made for the device that a tensor lies on, `torch.autocast(x.device.type, enabled=False)`."""

    def make(region: Any, device_type: Any, *args: Any, **kwargs: Any) -> Any:
        named = device_type.node.meta["value"] if isinstance(device_type, fx.Proxy) else device_type
        return original(region, named, *args, **kwargs)

    return make


def _without_gradients(original: Seen) -> Seen:
    """What a forward makes of its own gradients (forces, a trace of a Jacobian) is no operator of its values."""

    def grad(*args: Any, **kwargs: Any) -> Any:
        if holds_proxy((args, kwargs)):
            raise CaptureError(
                "the forward asks for gradients by torch.autograd.grad, which are not in a graph; capture the part of "
                "which these are the gradients, and put `grown.module` in its place"
            )
        return original(*args, **kwargs)

    return grad


def _sizes_free(original: Seen) -> Seen:
    """torch.distributions makes a `torch.Size` of the sizes of a sample, which would be the numbers of the example."""

    def extended(distribution: Any, sample_shape: Any = ()) -> Any:
        parts = sample_shape, distribution._batch_shape, distribution._event_shape
        if holds_proxy(parts):
            return tuple(size for part in parts for size in part)
        return original(distribution, sample_shape)

    return extended


def _vectors_copied(_: Seen) -> Seen:
    """The older spectral_norm writes its vectors by `out=`, from which no trace sees what becomes of them."""

    def compute_weight(norm: SpectralNorm, module: nn.Module, do_power_iteration: bool) -> Any:
        weight, u, v = (getattr(module, f"{norm.name}_{name}") for name in ("orig", "u", "v"))
        matrix = norm.reshape_weight_to_matrix(weight)
        if do_power_iteration:
            with torch.no_grad():
                for _ in range(norm.n_power_iterations):
                    v.copy_(F.normalize(torch.mv(matrix.t(), u), dim=0, eps=norm.eps))
                    u.copy_(F.normalize(torch.mv(matrix, v), dim=0, eps=norm.eps))
                u, v = u.clone(), v.clone()  # the next call overwrites them, perhaps in front of this one's gradients
        return weight / torch.dot(u, torch.mv(matrix, v))

    return compute_weight


AUTOCAST = (
    "its forward switches autocast on, which is not in a graph; let whoever calls the model do that: "
    "`with torch.autocast(...): grown.module(x)`"
)
WHILE_TRACED: dict[Any, Callable[[Seen], Seen]] = {
    checkpoint.checkpoint: _called_at_once,
    checkpoint.checkpoint_sequential: _called_in_turn,
    torch.autograd.grad: _without_gradients,
    torch.distributions.Distribution._extended_shape: _sizes_free,
    SpectralNorm.compute_weight: _vectors_copied,
    torch.autocast.__init__: _on_a_device,
    torch.autocast.__enter__: _without_autocast,
}


def grouped_products() -> dict[Any, Callable[[Seen], Seen]]:
    """What lets experts of transformers multiply as where they are compiled: by an operator of transformers' own.

    torch's kernel for grouped products has no form without data but in bfloat16, none in float64, and takes no width
    that is not aligned, as that of a grown one is not.
    """
    home = sys.modules.get("transformers.integrations.moe")
    asks = getattr(home, "_can_use_grouped_mm", None)
    return {asks: _denied} if isinstance(asks, types.FunctionType) else {}


def _denied(_: Seen) -> Seen:
    return lambda *args, **kwargs: False
