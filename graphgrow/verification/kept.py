"""What growth has to leave alone beside the function: ties, requires_grad, dtype, device, and persistence by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from torch import nn

from graphgrow.verification.case import Case, Findings
from graphgrow.verification.verdict import Check


def check_kept(case: Case, found: Findings) -> None:
    """Parameters and buffers that both sides have by name: the same kind of tensor, and tied to the same others."""
    before, after = case.before.module, case.after.module
    faults = [*_faults(before, after)]
    count = len(_tensors(before).keys() & _tensors(after).keys())
    where = faults[0] if faults else "none"
    what = "ties, requires_grad, dtypes"
    found.checks.append(Check("kept", what, float(len(faults)), 0.0, where, not faults, (), count))


def _faults(before: nn.Module, after: nn.Module) -> Iterator[str]:
    old, new = _tensors(before), _tensors(after)
    shared = old.keys() & new.keys()
    for name in sorted(shared):
        for what in ("requires_grad", "dtype", "device"):
            mine, theirs = getattr(old[name], what), getattr(new[name], what)
            if mine != theirs:
                yield f"{name} ({what} was {mine}, is {theirs})"
        if isinstance(old[name], nn.Parameter) != isinstance(new[name], nn.Parameter):
            yield f"{name} (parameter or buffer)"
    if _ties(before, shared) != _ties(after, shared):
        changed = _ties(before, shared) ^ _ties(after, shared)
        yield f"{sorted(min(changed, key=sorted))} (tied)"
    lost = (before.state_dict().keys() & shared) ^ (after.state_dict().keys() & shared)
    yield from (f"{name} (persistence)" for name in sorted(lost))


def _tensors(module: nn.Module) -> dict[str, object]:
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])


def _ties(module: nn.Module, names: set[str]) -> set[frozenset[str]]:
    """The names that stand for one tensor, for each tensor that has several."""
    groups: dict[int, set[str]] = defaultdict(set)
    for name, tensor in _tensors(module).items():
        if name in names:
            groups[id(tensor)].add(name)
    return {frozenset(group) for group in groups.values() if len(group) > 1}
