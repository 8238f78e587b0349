"""Inputs at the edges of what a model is called with, where a rewrite that is right on normal numbers may not be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.ir.inputs import TensorSpec
from graphgrow.verification.case import OF_NOISE, SLACK, UNIT, Case, Findings, Noise
from graphgrow.verification.grown import admitted_noise, outputs_beside
from graphgrow.verification.outputs import compare_outputs, outputs_agree, widened
from graphgrow.verification.probes import Inputs
from graphgrow.verification.worst import Worst

JITTERS = 3  # where equal numbers are ranked, rounding decides, and one draw of noise shows few of the ways


def _channelwise(x: torch.Tensor) -> torch.Tensor:
    """The same number at all positions behind axis 1; nothing of a sequence of features, whose positions come first."""
    return x[(slice(None), slice(None), *[slice(1)] * (x.dim() - 2))].expand_as(x).clone() if x.dim() > 2 else x


def _one_hot(x: torch.Tensor) -> torch.Tensor:
    """One in a sample."""
    hot = torch.zeros_like(x)
    hot.view(x.shape[0] if x.dim() > 1 else 1, -1)[:, -1] = 1.0
    return hot


def _strided(x: torch.Tensor) -> torch.Tensor:
    """Every second element of a larger tensor, axes in reverse order."""
    backwards = tuple(reversed(range(x.dim())))
    return torch.stack([x, x], -1)[..., 0].permute(backwards).contiguous().permute(backwards)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _expanded(x: torch.Tensor) -> torch.Tensor:
    """One sample under every number of the batch, without memory of its own."""
    return x[:1].expand_as(x) if x.dim() > 1 else x


FLOATING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zeros": torch.zeros_like,
    "negative zeros": lambda x: -torch.zeros_like(x),
    "ones": torch.ones_like,
    "1e-3": lambda x: x * 1e-3,
    "1e4": lambda x: x * 1e4,
    "1e18": lambda x: x * 1e18,
    "denormal": lambda x: x * 1e-310,
    "negative": lambda x: -x.abs(),
    "one-hot": _one_hot,
    "whole numbers": torch.round,  # kinks of ReLU, and maxima that are shared
    "constant per channel": _channelwise,
    "cancelling": lambda x: x - x.flip(-1),
}
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "strided": _strided,
    "channels last": _channels_last,
    "expanded": _expanded,
}
LOWEST, HIGHEST = ("zeros", "cancelling"), ("ones", "1e4")  # where whole numbers and masks are at an end of their range


def compare_extremes(case: Case, found: Findings) -> None:
    """The outputs in eval mode, in float64, on inputs of each kind.

    Floating-point inputs become zeros, ones, scaled to 1e18, denormal, and so on; whole numbers the lowest and the
    highest that the example has; masks all false and all true. Where the parent's output is finite, so must the
    child's be: a closed gate is closed only where what is behind it stays finite.
    """
    worst = Worst()
    with torch.no_grad():
        for kind, probe in _drawn(case):
            outputs = outputs_beside(case, "eval", probe, kind, found)
            if outputs is None:
                continue
            first, second = outputs
            second = pytree.tree_map(_where_finite, first, second) if _alike(first, second) else second
            spread = _spread(case, probe, first, second)
            compare_outputs(first, second, spread, worst, SLACK, UNIT, kind)
    found.checks.append(worst.check("extremes", "outputs, inputs at the edges", OF_NOISE))


def _spread(case: Case, probe: Inputs, first: Any, second: Any) -> Any:
    """Noisy outputs that the child's are held against, of as many draws as it takes."""
    noise = Noise(case, case.parent.module, probe, "eval")
    spread = admitted_noise(case, "eval", probe, first, second, noise)
    for draw in range(1, JITTERS):
        if outputs_agree(first, second, spread, SLACK, UNIT):
            break
        for module in (case.parent.module, case.child.module):
            moved = case.noisy(module, probe, "eval", draw).finish()
            spread = widened(first, spread, second if module is case.child.module else first, moved)
    return spread


def _alike(first: Any, second: Any) -> bool:
    return bool(pytree.tree_structure(first) == pytree.tree_structure(second))


def _where_finite(first: Any, second: Any) -> Any:
    """The child's numbers, with the parent's own where those are infinite or none: nothing is claimed there."""
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor) or first.shape != second.shape:
        return second
    return second if first.dtype != second.dtype else torch.where(torch.isfinite(first), second, first)


def _drawn(case: Case) -> Iterator[tuple[str, Inputs]]:
    """Inputs of each kind that is unlike the sample it is made from, at the example's batch size."""
    spec = case.probes.spec
    args, kwargs = spec.sample(case.probes.seed, dtype=torch.float64)
    sample, structure = pytree.tree_flatten((args, kwargs))
    for kind in (*FLOATING, *LAYOUTS):
        leaves = [_leaf(kind, leaf, of) for leaf, of in zip(sample, spec.leaves, strict=True)]
        if any(one is not other for one, other in zip(leaves, sample, strict=True)):
            yield kind, pytree.tree_unflatten(leaves, structure)


def _leaf(kind: str, drawn: Any, spec: Any) -> Any:
    if not isinstance(spec, TensorSpec):
        return drawn
    if kind in LAYOUTS:
        return LAYOUTS[kind](drawn)
    if drawn.is_floating_point():
        extreme = FLOATING[kind](drawn)
        return extreme if not spec.order else extreme.abs().clamp(max=1.0 if spec.order == "unit" else float("inf"))
    if spec.order or spec.given:
        return drawn
    end = spec.low if kind in LOWEST else spec.high if kind in HIGHEST else None
    return drawn if end is None else torch.full_like(drawn, end)
