"""What torch does by itself in a forward and a trace has to see, or to refuse: patched while one runs."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from graphgrow.capture.functions import Seen, calls_seen
from graphgrow.capture.proxies import holds_proxy
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
def own_backwards_refused() -> Iterator[None]:
    """A torch.autograd.Function has a backward of its own, which its forward's operators would not have."""
    original = torch.autograd.Function.__dict__["apply"]
    function = getattr(original, "__func__", None)
    if isinstance(function, types.FunctionType):  # the code that `double = Double.apply` leads to as well
        with calls_seen({function: _refusing}):
            yield
        return
    call = _refusing(lambda kind, *args, **kwargs: original.__get__(None, kind)(*args, **kwargs))
    torch.autograd.Function.apply = classmethod(call)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]


def _refusing(original: Seen) -> Seen:
    def apply(kind: Any, *args: Any, **kwargs: Any) -> Any:
        if holds_proxy((args, kwargs)):
            raise CaptureError(
                f"the autograd function {kind.__name__} has a backward of its own, for which there is no rule; mark "
                "the submodule that calls it as a leaf"
            )
        return original(kind, *args, **kwargs)

    return apply


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
