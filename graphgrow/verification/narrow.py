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
from graphgrow.verification.worst import Worst

MULTIPLE = 4.0  # of the parent's error
LIMIT = f"{MULTIPLE:g} times the parent's error, and (8 + sqrt K) u"


def compare_own_dtype(case: Case, found: Findings) -> None:
    """err(child) <= 4 err(parent) + (8 + sqrt(K)) u max|f|, err against float64, K the longest sum, u the unit."""
    dtypes = {p.dtype for p in case.parent.module.parameters() if p.is_floating_point()}
    if dtypes <= {torch.float64}:
        return
    unit = max(torch.finfo(dtype).eps for dtype in dtypes) / 2
    reduction = max((p[0].numel() for p in case.after.module.parameters() if p.dim() > 1), default=1)
    rounding = (8 + math.sqrt(reduction)) * unit
    worst, own = Worst(), Numbers(None)
    with torch.no_grad():
        wide = case.probes.drawn("eval", torch.float64)
        for narrow, exactly in zip(case.probes.drawn("eval", None), wide, strict=True):
            exact = case.runner(case.parent.module, exactly, "eval").finish()
            first = case.runner(case.parent.module, narrow, "eval", own).finish()
            second = case.runner(case.after.module, narrow, "eval", own).finish()
            if _dtypes(first) != _dtypes(second):
                worst.differ("output (dtype)")
            second = _doubled(second)
            spread = _doubled(first)
            if not outputs_agree(exact, second, spread, MULTIPLE, rounding):
                moved = case.runner(
                    case.after.module, narrow, "eval", Numbers(None, one_ulp(case.probes.seed))
                ).finish()
                spread = widened(exact, spread, second, _doubled(moved))
            compare_outputs(exact, second, spread, worst, MULTIPLE, rounding)
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    found.checks.append(worst.check("eval", f"outputs, {names}", LIMIT))


def _dtypes(outputs: Any) -> list[Any]:
    return [leaf.dtype if isinstance(leaf, torch.Tensor) else type(leaf) for leaf in pytree.tree_leaves(outputs)]


def _doubled(narrow: Any) -> Any:
    """Outputs in float64. The parent's stand in the place of noise: its error is what the child's is held against."""
    return pytree.tree_map(lambda leaf: cast(leaf, torch.float64), narrow)
