"""A known mistake of one part in a million, planted in the child: the comparison has to see it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from graphgrow.verification.case import SLACK, UNIT, Case, Findings
from graphgrow.verification.numbers import Numbers
from graphgrow.verification.outputs import compare_outputs
from graphgrow.verification.probes import Inputs
from graphgrow.verification.sensitivity import weights_that_matter
from graphgrow.verification.worst import Worst

PLANTED = 1e-6  # its relative size


def plant(case: Case, mode: str, probe: Inputs, first: Any, noise: Any, found: Findings) -> str:
    """Change one weight that matters by one part in 10^6 and see the comparison with the parent's output fail.

    A weight of zero, in a block that is closed, is set to 10^-6 of the largest weight beside it, or of 1.

    Args:
        case: parent and child.
        mode: to compare in.
        probe: float64 inputs.
        first: what the parent computes from them.
        noise: the same perturbed by one ulp.
        found: takes in a note.

    Returns:
        Why it was not seen, if it was not: gains that are nearly closed hide what lies behind them.
    """
    module = case.child.module
    seen = partial(case.outputs_of, module)
    tried = []
    for name, position in weights_that_matter(module.train(mode == "train"), probe, case.touched, seen):
        worst = Worst()
        with torch.no_grad():
            numbers = Numbers(torch.float64, partial(_change, module.get_parameter(name), position))
            compare_outputs(first, case.runner(module, probe, mode, numbers).finish(), noise, worst, SLACK, UNIT)
        if not worst.passed:
            found.notes.append(f"a mistake of 1e-6 planted in `{name}` was seen: error {worst.error:.1e}")
            return ""
        tried.append(f"`{name}`")
    return f"a mistake of 1e-6 planted in {', '.join(tried)} does not show at the outputs"


def _change(parameter: torch.Tensor, position: int, original: torch.Tensor, new: torch.Tensor) -> None:
    if original is parameter:
        place = torch.unravel_index(torch.tensor(position), new.shape)
        largest = float(new.abs().max()) or 1.0
        new[place] = new[place] * (1 + PLANTED) if new[place] != 0 else PLANTED * largest
