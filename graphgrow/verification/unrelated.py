"""Any two modules: outputs alone, in one mode, since nothing is known of how the two belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from graphgrow.ir.inputs import InputSpec
from graphgrow.network.network import Network
from graphgrow.verification.case import OF_NOISE, SLACK, UNIT, Findings
from graphgrow.verification.copies import double_module
from graphgrow.verification.numbers import one_ulp
from graphgrow.verification.outputs import compare_outputs
from graphgrow.verification.probes import Probes
from graphgrow.verification.sensitivity import degeneracy
from graphgrow.verification.worst import Worst


def compare_unrelated(
    before: Network | nn.Module,
    after: Network | nn.Module,
    probes: Probes,
    found: Findings,
    sizes: tuple[InputSpec, ...] = (),
) -> tuple[str, ...]:
    """Compare outputs in float64; one module is copied after the other, so that there is one wide copy at most.

    Returns:
        The mode in which they were compared, if there is one in which both sides are what they stand for.
    """
    mode = _common_mode(before, after)
    if mode is None:
        found.doubts.append("one graph holds for train mode alone, and the other for eval mode alone")
        return ()
    found.notes.append(f"no common ledger: outputs were compared, in {mode} mode")
    inputs = [*probes.drawn(mode, torch.float64), *(spec.sample(probes.seed, dtype=torch.float64) for spec in sizes)]
    move = one_ulp(probes.seed)

    def outputs(side: Network | nn.Module, prepare: Callable[[nn.Module], Any] = lambda module: None) -> list[Any]:
        module = side.module if isinstance(side, Network) else side
        wide = double_module(module).train(mode == "train")
        with torch.no_grad():
            prepare(wide)
            return [wide(*args, **kwargs) for args, kwargs in inputs]

    def jitter(module: nn.Module) -> None:
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                moved = tensor.detach().clone()
                move(tensor, moved)
                tensor.copy_(moved)

    worst, seen = Worst(), outputs(before)
    for first, second, noise in zip(seen, outputs(after), outputs(before, jitter), strict=True):
        compare_outputs(first, second, noise, worst, SLACK, UNIT)
    found.checks.append(worst.check(mode, "outputs, float64", OF_NOISE))
    degenerate = degeneracy(seen)
    if degenerate:
        found.doubts.append(f"{degenerate}, and without a common ledger nothing else can be tried")
    return (mode,)


def _common_mode(*sides: Network | nn.Module) -> str | None:
    """The mode in which both sides are what they stand for: eval mode where that is so; None where there is none."""
    held = [side.modes for side in sides if isinstance(side, Network)]
    return next((mode for mode in ("eval", "train") if all(mode in modes for modes in held)), None)
