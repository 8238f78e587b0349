"""Calls of a torch.autograd.Function of the user's: each is one node, a layer with the function's own backward.

One that mixes entries, as a norm does, would freeze its axes as a node; where its backward is the derivative of its
forward, the operators of that stand in the graph instead, as do those of a function that it calls and nothing else.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.stand_ins.derivatives import backward_is_derivative, run_forward
from graphgrow.capture.stand_ins.functions import Seen, calls_seen
from graphgrow.capture.stand_ins.passed_through import called_through
from graphgrow.capture.stand_ins.proxies import holds_proxy
from graphgrow.errors import CaptureError
from graphgrow.layers import OwnFunction
from graphgrow.ops.own_function import treats_entries_alone

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, fx.Proxy)


class Recorder(Protocol):
    """What a tracer offers here."""

    def aside(self) -> AbstractContextManager[None]:
        """What runs within is not recorded."""
        ...

    def call_added(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Record a call of a layer that the model does not have, below the module whose forward runs."""
        ...


@contextmanager
def own_functions_kept(tracer: Recorder) -> Iterator[None]:
    """Record the calls of autograd functions: their backward is not what their forward's operators would have."""

    def keeping(original: Seen) -> Seen:
        def apply(kind: Any, *args: Any, **kwargs: Any) -> Any:
            if not holds_proxy((args, kwargs)):
                return original(kind, *args, **kwargs)
            strange = next((leaf for leaf in pytree.tree_leaves((args, kwargs)) if not isinstance(leaf, _PLAIN)), None)
            through = called_through(kind, args, tracer.aside) if not kwargs and strange is not None else None
            if through is not None:
                called, handed = through
                answer = called(*handed)
                if not isinstance(answer, fx.Proxy):
                    raise CaptureError(f"the autograd function {kind.__name__} answers with more than one tensor")
                return answer
            if kwargs or strange is not None:
                raise CaptureError(
                    f"the autograd function {kind.__name__} is given a {type(strange).__name__}, of which it may do "
                    "anything; mark the submodule that calls it as a leaf"
                )
            if plain(kind, tuple(fx.node.map_aggregate(args, _example))):
                return run_forward(kind, args)
            return tracer.call_added(kind.__name__, OwnFunction(kind), args)

        return apply

    known: dict[Any, bool] = {}  # by function and what it is given

    def plain(kind: Any, examples: tuple[Any, ...]) -> bool:
        form = (kind, *((tuple(item.shape), item.dtype) if isinstance(item, torch.Tensor) else repr(item)
                        for item in examples))  # fmt: skip
        if form not in known:
            with tracer.aside():
                alone = treats_entries_alone(OwnFunction(kind), examples)
            known[form] = not alone and backward_is_derivative(kind, examples, tracer.aside)
        return known[form]

    original = torch.autograd.Function.__dict__["apply"]
    function = getattr(original, "__func__", None)
    if isinstance(function, types.FunctionType):  # the code that `double = Double.apply` leads to as well
        with calls_seen({function: keeping}):
            yield
        return
    call: Callable[..., Any] = keeping(lambda kind, *args, **kwargs: original.__get__(None, kind)(*args, **kwargs))
    torch.autograd.Function.apply = classmethod(call)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]


def _example(arg: Any) -> Any:
    return arg.node.meta["value"] if isinstance(arg, fx.Proxy) else arg
