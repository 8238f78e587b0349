"""Comparing nested outputs, and the buffers after a step, within a multiple of the measured noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.ir.doubles import in_double, parts
from graphgrow.verification.places import Places, project
from graphgrow.verification.worst import Worst, errors, largest


def compare_outputs(
    before: Any, after: Any, noise: Any, worst: Worst, slack: float, unit: float, inputs: str = ""
) -> None:
    """Compare nested outputs; the limit is `slack` times the noise of `before` plus a few units of the largest.

    What is no floating-point number (places, decisions) may differ where noise changes it as well.

    Args:
        before: outputs of the reference.
        after: outputs under test.
        noise: outputs of the reference perturbed by one ulp; `before` itself stands for none.
        worst: takes in the errors.
        slack: multiple of the noise that is admitted.
        unit: what is admitted besides, relative to the largest element.
        inputs: what the outputs are of, to be named with a failure.
    """
    of = inputs and f" of {inputs}"
    first, second, third = (pytree.tree_leaves_with_path(item) for item in (before, after, noise))
    if [path for path, _ in first] != [path for path, _ in second]:
        worst.differ(f"output{of} (structure)")
        return
    for (path, a), (_, b), (_, c) in zip(first, second, third, strict=True):
        where = f"output{pytree.keystr(path)}{of}"
        if not isinstance(a, torch.Tensor):
            worst.same(where) if a == b else worst.differ(where)
        elif not isinstance(b, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            worst.differ(f"{where} (shape or dtype)")
        elif not parts(a).is_floating_point():
            worst.see((a != b).double(), (a != c).double(), where)
        else:
            a, b, c = (parts(one.detach()).double() for one in (a, b, c))
            worst.see(*errors(b, a, slack * largest(a - c) + unit * largest(a)), where)


def outputs_agree(before: Any, after: Any, noise: Any, slack: float, unit: float) -> bool:
    """Whether `compare_outputs` finds nothing beyond its limit."""
    alone = Worst()
    compare_outputs(before, after, noise, alone, slack, unit)
    return alone.passed


def compare_buffers(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    noise: Callable[[], Mapping[str, torch.Tensor]],
    places: Places,
    worst: Worst,
    slack: float,
    unit: float,
) -> None:
    """Compare buffers after a step in train mode, by name and at the places of the old units.

    The limit is that of `compare_outputs`; `noise` gives those of the reference perturbed by one ulp, and is only
    asked where a limit without noise is exceeded.
    """
    for name, mine in before.items():
        if name not in after:
            continue
        other, exact = in_double(project(after[name], places.get(name), mine)), in_double(mine)
        if exact.shape != other.shape:
            worst.differ(f"{name} (shape)")
        elif exact.numel():
            error, limit = errors(other, exact, unit * largest(exact))
            if not bool((error <= limit).all()):
                moved = largest(exact - in_double(noise()[name]))
                error, limit = errors(other, exact, slack * moved + unit * largest(exact))
            worst.see(error, limit, name)


def widened(first: Any, noise: Any, second: Any, moved: Any) -> Any:
    """Noisy outputs of a reference, moved further where the noise of what is tested is the larger.

    Args:
        first: outputs of the reference.
        noise: the same perturbed by one ulp.
        second: outputs under test.
        moved: the same perturbed by one ulp.

    Returns:
        What may stand for `noise`; unlike structures leave it as it is.
    """
    structures = {str(pytree.tree_structure(item)) for item in (first, noise, second, moved)}
    return noise if len(structures) > 1 else pytree.tree_map(_wider, first, noise, second, moved)


def _wider(first: Any, noise: Any, second: Any, moved: Any) -> Any:
    if not isinstance(first, torch.Tensor) or not first.is_floating_point() or first.shape != second.shape:
        return noise
    by_child, by_parent = largest(second - moved), largest(first - noise)
    return noise if by_parent >= by_child else first + by_child
