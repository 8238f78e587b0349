"""In the parameters' own dtype: the child's error against float64 is at most 4 times the parent's."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.verification.case import Case, Findings
from graphgrow.verification.numbers import Numbers, one_ulp
from graphgrow.verification.outputs import compare_outputs, outputs_agree, widened
from graphgrow.verification.probes import cast
from graphgrow.verification.squares import run_beside
from graphgrow.verification.worst import Worst

MULTIPLE = 4.0  # of the parent's error
JITTERS = 4  # where a network amplifies rounding, its noise comes in leaps that few draws show
LIMIT = f"{MULTIPLE:g} times the parent's error, and 8 u + sqrt(K) 2^-24"


def compare_own_dtype(case: Case, found: Findings) -> None:
    """Compare outputs in eval mode, in the dtypes of the parameters; nothing where these are float64."""
    dtypes = {p.dtype for p in case.before.module.parameters() if p.is_floating_point()}
    if not dtypes <= {torch.float64}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        found.checks.append(narrow_errors(case, None, dtypes).check("eval", f"outputs, {names}", LIMIT))


def narrow_errors(case: Case, inputs: torch.dtype | None, dtypes: set[torch.dtype]) -> Worst:
    """err(child) <= 4 err(parent) + (8 u + sqrt(K) 2^-24) max|f|, err against float64, K the longest sum, u the unit.

    Args:
        case: parent and child (`after`) in the dtypes that are meant.
        inputs: dtype of the inputs; None keeps each one's own.
        dtypes: that are computed in; the widest unit of them is u.
    """
    unit = max(torch.finfo(dtype).eps for dtype in dtypes) / 2
    reduction = max((p[0].numel() for p in case.after.module.parameters() if p.dim() > 1), default=1)
    rounding = 8 * unit + math.sqrt(reduction) * min(unit, 2.0**-24)  # sums are taken in float32 at least
    worst, own = Worst(), Numbers(None)
    with torch.no_grad():
        for number, narrow in case.drawn(inputs).items():
            exact = case.exact.get((case.before.module, number)) if inputs is None else None
            if exact is None:
                wide = pytree.tree_map(lambda leaf: cast(leaf, torch.float64), narrow)
                exact = case.runner(case.before.module, wide, "eval").finish()
            reference = case.runner(case.before.module, narrow, "eval", own)
            trial = case.runner(case.after.module, narrow, "eval", own)
            first, second = run_beside(reference, trial, case.counterparts)
            if _dtypes(first) != _dtypes(second):
                worst.differ("output (dtype)")
            spread, second = _doubled(first), _doubled(second)
            for seed in range(case.probes.seed, case.probes.seed + JITTERS):
                if outputs_agree(exact, second, spread, MULTIPLE, rounding):
                    break
                moved = case.runner(case.after.module, narrow, "eval", Numbers(None, one_ulp(seed))).finish()
                spread = widened(exact, spread, second, _doubled(moved))
            compare_outputs(exact, second, spread, worst, MULTIPLE, rounding)
    return worst


def _dtypes(outputs: Any) -> list[Any]:
    return [leaf.dtype if isinstance(leaf, torch.Tensor) else type(leaf) for leaf in pytree.tree_leaves(outputs)]


def _doubled(narrow: Any) -> Any:
    """Outputs in float64. The parent's stand in the place of noise: its error is what the child's is held against."""
    return pytree.tree_map(lambda leaf: cast(leaf, torch.float64), narrow)
