"""Autograd functions whose backward is the derivative of their forward: the forward alone can stand in a graph.

Memory-saving functions are of this kind (a swish, a layer norm, a scan that keep less than autograd would). What has
another backward on purpose, as a straight-through estimator or a reversed gradient, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils import _pytree as pytree

_PLAIN = (bool, int, float, str, type(None), torch.dtype)
_SETTINGS = torch.autograd.Function.setup_context  # of a function that has none
_SEED, _CLOSE = 5, 1e-6  # the part of the largest entry that rounding may come to, in float64
FAILS = (RuntimeError, TypeError, ValueError, AttributeError, NameError, IndexError, KeyError, AssertionError)


class Context:
    """What a forward is given in the place of autograd's context: it keeps what it is told, and nothing reads it.

    It does not know `mark_dirty`: a function that overwrites its inputs is none whose forward can stand alone.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep nothing."""

    def set_materialize_grads(self, value: bool) -> None:
        """It says how the backward is called, which is not."""


def run_forward(kind: type[torch.autograd.Function], args: tuple[Any, ...]) -> Any:
    """The forward of an autograd function as plain operators, without its backward."""
    if kind.setup_context is not _SETTINGS:
        return kind.forward(*args)
    return kind.forward(Context(tuple(not isinstance(arg, _PLAIN) for arg in args)), *args)


def backward_is_derivative(
    kind: type[torch.autograd.Function], examples: tuple[Any, ...], aside: Callable[[], AbstractContextManager[None]]
) -> bool:
    """Whether an autograd function gives, on drawn numbers, the gradients that its forward's operators have.

    Three draws in float64 (of ones, of tens, of positive numbers), with gradients from 0.001 to 1000 coming in, so that
    one that is clipped, scaled, or passed on where the forward is flat, is seen. What needs the values of a tensor to
    know its way, or its shapes, is none.

    Args:
        kind: the function.
        examples: its arguments on the meta device; of tensors, the shapes and dtypes count.
        aside: in which operators run unseen.
    """
    floats = [example for example in examples if isinstance(example, torch.Tensor)]
    if not floats or not all(example.is_floating_point() for example in floats):
        return False
    if not all(isinstance(example, (torch.Tensor, *_PLAIN)) for example in examples):
        return False
    with aside(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        if not _runs_without_data(kind, examples):
            return False
        found = [_agree(kind, drawn) for drawn in _draws(examples)]
    return all(agree is not False for agree in found) and any(found)


def _runs_without_data(kind: type[torch.autograd.Function], examples: tuple[Any, ...]) -> bool:
    try:
        run_forward(kind, tuple(arg.detach() if isinstance(arg, torch.Tensor) else arg for arg in examples))
    except FAILS:
        return False
    return True


def _draws(examples: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    makers: tuple[Callable[[torch.Size], torch.Tensor], ...] = (
        lambda shape: torch.randn(shape, dtype=torch.float64),
        lambda shape: 10 * torch.randn(shape, dtype=torch.float64),
        lambda shape: torch.rand(shape, dtype=torch.float64) + 0.1,
    )
    for make in makers:
        yield tuple(make(example.shape) if isinstance(example, torch.Tensor) else example for example in examples)


def _agree(kind: type[torch.autograd.Function], drawn: tuple[Any, ...]) -> bool | None:
    """Whether values and gradients are the same; None where they are no numbers, which says nothing."""
    try:
        own = _with_gradients(lambda args: kind.apply(*args), drawn)  # type: ignore[no-untyped-call]
        plain = _with_gradients(lambda args: run_forward(kind, args), drawn)
    except FAILS:  # a function that cannot be run so is refused, as one that differs is
        return False
    if [a is None for a in own] != [b is None for b in plain]:
        return False
    pairs = [(a, b) for a, b in zip(own, plain, strict=True) if a is not None and b is not None]
    if not all(bool(torch.isfinite(a).all()) for a, _ in pairs):
        return None
    return all(a.shape == b.shape and bool(((a - b).abs() <= _CLOSE * a.abs().max()).all()) for a, b in pairs)


def _with_gradients(run: Callable[[tuple[Any, ...]], Any], drawn: tuple[Any, ...]) -> list[torch.Tensor | None]:
    """The outputs, and what each input gets for gradients of three sizes; None of an output that carries none."""
    inputs = [arg.clone().requires_grad_() for arg in drawn if isinstance(arg, torch.Tensor)]
    rest = iter(inputs)
    args = tuple(next(rest) if isinstance(arg, torch.Tensor) else arg for arg in drawn)
    outputs = [out for out in pytree.tree_leaves(run(args)) if isinstance(out, torch.Tensor)]
    learned = [out for out in outputs if out.requires_grad]
    results: list[torch.Tensor | None] = [out.detach() if out.requires_grad else None for out in outputs]
    generator = torch.Generator().manual_seed(_SEED)
    for size in (1.0, 1e-3, 1e3):
        incoming = [size * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
                    for out in learned]  # fmt: skip
        found: Sequence[torch.Tensor | None] = torch.autograd.grad(
            learned, inputs, incoming, retain_graph=True, allow_unused=True
        )
        zeros = (torch.zeros_like(given) if gradient is None else gradient
                 for given, gradient in zip(inputs, found, strict=True))  # fmt: skip
        results += list(zeros)
    return results
