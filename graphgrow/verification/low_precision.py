"""Low precision: the ledger applied to the parent in float16 or bfloat16, and both under autocast."""

from __future__ import annotations

import dataclasses

import torch

from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network
from graphgrow.rewrite.apply import replay
from graphgrow.verification.case import Case, Findings
from graphgrow.verification.narrow import LIMIT, narrow_errors
from graphgrow.verification.numbers import Numbers
from graphgrow.verification.runner import NodeFails


def compare_in_dtype(case: Case, found: Findings, dtype: torch.dtype) -> None:
    """The parent is cast, and the ledger applied to that: shares are exact in any dtype, sums are not."""
    if any(parameter.is_complex() for parameter in case.before.module.parameters()):
        found.notes.append(f"{dtype}: not compared, the model has complex weights, for which torch has no such type")
        return
    base = _cast(case.before, dtype)
    try:
        assert base.analysis.facts  # runs every node on the meta device
    except (RuntimeError, TypeError, ValueError) as error:  # a cast to what the example's dtype was, say
        cause = str(error).partition(chr(10))[0]
        found.notes.append(f"{dtype}: not compared, the parent itself does not run in it: {cause}")
        return
    there = dataclasses.replace(case, before=base, after=replay(base, case.entries), wide=Numbers(torch.float64))
    _compare(there, str(dtype).removeprefix("torch."), dtype, dtype, found)


def compare_under_autocast(case: Case, found: Findings) -> None:
    """The networks as they are, under `torch.autocast` to bfloat16, which leaves float64 alone."""
    with torch.autocast(case.probes.spec.device.type, dtype=torch.bfloat16):
        _compare(case, "autocast", None, torch.bfloat16, found)


def _compare(case: Case, mode: str, inputs: torch.dtype | None, dtype: torch.dtype, found: Findings) -> None:
    try:
        worst = narrow_errors(case, inputs, {dtype})
    except NodeFails as failure:
        if not failure.of_parent:
            raise
        found.notes.append(f"{mode}: not compared, {failure} in the parent itself")  # the backend may lack an operator
        return
    found.checks.append(worst.check(mode, "outputs", LIMIT))


def _cast(network: Network, dtype: torch.dtype) -> Network:
    module = Editor(network.module, share=False).finish().to(dtype)
    return dataclasses.replace(network, module=module, inputs=network.inputs.with_dtype(dtype))
