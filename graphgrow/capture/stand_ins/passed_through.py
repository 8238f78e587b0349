"""Autograd functions that call another function and are its derivative on the way back: checkpoints written by hand.

Diffusion models have one: `CheckpointFunction.apply(block, 2, x, time, *parameters)` keeps the inputs of a block alone
and computes it again when its gradients are asked for. What it does is no matter of what it calls, and is tried with
functions that are known; what it calls then stands in the graph by its operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any

import torch
from torch import fx, nn

from graphgrow.capture.stand_ins.derivatives import FAILS, Context

_SEED, _CLOSE = 5, 1e-9  # the part of the largest entry that rounding may come to, in float64
_SIZES = ((3,), (2, 4), (2, 3, 4))  # of the tensors that it is tried with


def called_through(
    kind: type[torch.autograd.Function], args: tuple[Any, ...], aside: Callable[[], AbstractContextManager[None]]
) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """The function that an autograd function calls, and what it hands it; None if it may do anything else besides.

    Args:
        kind: the function.
        args: its arguments, proxies for tensors. One is a method of a module of the model's or such a module, and all
            parameters of that module are among the others.
        aside: in which operators run unseen.
    """
    found = [place for place, arg in enumerate(args) if callable(arg) and not isinstance(arg, fx.Proxy)]
    if len(found) != 1 or not _has_all_parameters(args[found[0]], args):
        return None
    (place,) = found
    tensors = [i for i, arg in enumerate(args) if isinstance(arg, fx.Proxy)]
    with aside(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        handed = _handed(kind, args, place, tensors)
        if handed is None or not all(_is_derivative(kind, args, place, tensors, handed, size) for size in _SIZES):
            return None
    return args[place], tuple(args[i] for i in handed)


def _has_all_parameters(called: Any, args: tuple[Any, ...]) -> bool:
    """Whether what is called belongs to a module all parameters of which are given, too, and so get gradients."""
    owner = called.__self__ if isinstance(called, MethodType) else called
    if not isinstance(owner, nn.Module):
        return False
    given = {arg.node for arg in args if isinstance(arg, fx.Proxy)}
    parameters: list[Any] = list(owner.parameters())  # proxies while a model is traced
    return all(isinstance(parameter, fx.Proxy) and parameter.node in given for parameter in parameters)


def _handed(
    kind: type[torch.autograd.Function], args: tuple[Any, ...], place: int, tensors: Sequence[int]
) -> list[int] | None:
    """Which of its arguments it hands to what it calls, once; None if that is not seen, or not what it answers with."""
    drawn = {i: torch.randn(2, dtype=torch.float64) for i in tensors}
    calls: list[list[int]] = []
    answer = torch.randn(2, dtype=torch.float64)

    def called(*given: Any) -> torch.Tensor:
        calls.append([next(i for i in tensors if given_one is drawn[i]) for given_one in given])
        return answer

    try:
        returned = kind.forward(Context((False,) * len(args)), *_with(args, place, called, drawn))
    except (*FAILS, StopIteration):
        return None
    return calls[0] if returned is answer and len(calls) == 1 and calls[0] else None


def _is_derivative(
    kind: type[torch.autograd.Function],
    args: tuple[Any, ...],
    place: int,
    tensors: Sequence[int],
    handed: Sequence[int],
    size: tuple[int, ...],
) -> bool:
    """Whether it answers, with gradients, as a function of known form does that it calls, on drawn numbers."""
    drawn = {i: torch.randn(size, dtype=torch.float64, requires_grad=True) for i in tensors}
    held = [drawn[i] for i in tensors if i not in handed]
    weights = [torch.randn(size, dtype=torch.float64) for _ in tensors]

    def called(*given: torch.Tensor) -> torch.Tensor:
        mixed = [weight * entry.sin().cumsum(-1) for weight, entry in zip(weights, (*given, *held), strict=True)]
        return torch.exp(0.1 * torch.stack(mixed).sum(0)) * given[0]

    incoming = torch.randn(size, dtype=torch.float64)
    try:
        answers = kind.apply(*_with(args, place, called, drawn)), called(*(drawn[i] for i in handed))  # type: ignore[no-untyped-call]
        found, wanted = (
            (answer, *torch.autograd.grad(answer, list(drawn.values()), incoming, allow_unused=True))
            for answer in answers
        )
    except FAILS:
        return False
    return all(
        a is not None and b is not None and bool(((a - b).abs() <= _CLOSE * b.abs().max()).all())
        for a, b in zip(found, wanted, strict=True)
    )


def _with(args: tuple[Any, ...], place: int, called: Callable[..., Any], drawn: dict[int, torch.Tensor]) -> list[Any]:
    return [called if i == place else drawn.get(i, arg) for i, arg in enumerate(args)]
