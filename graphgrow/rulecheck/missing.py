"""What an operator could be admitted and its rule declines: found by trying, and so no more than hints."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from graphgrow.ir.flow import Fill
from graphgrow.ir.positions import Units, axis_map, occurrences
from graphgrow.ir.terms import leaves, normal
from graphgrow.planning.growth import Kind, Plan
from graphgrow.rulecheck.lifted import Mismatch, Observed, observe, require_close, require_filled
from graphgrow.rulecheck.probe import Draw
from graphgrow.rulecheck.square import Square, drawn_units

LARGE = 1e3  # a factor on free new entries, at which what is not finite everywhere shows
Hints = dict[str, str | None]  # by axis and fills, the better outcome that the operator showed; None where it did not


def missing(square: Square, draw: Draw) -> Hints:
    """Everything that was tried, and where the operator did better than its rule says."""
    hints: Hints = {}
    for name, space in square.spaces().items():
        for kind in Kind:
            for plan, outcome in square.assignments(space, kind):
                fills = _uniform(plan)
                if fills is None:
                    continue
                units = drawn_units(space, kind, draw, square.only_uniform(space))
                shown, claimed = _shown(square, plan, units), None if outcome is None else outcome.result
                text = f"declines {fills}" if claimed is None else f"says {fills} -> {claimed}"
                hints[f"{name}: the rule {text}"] = shown if shown not in (None, claimed) else None
    return {**hints, **dict(_frozen(square))}


def _uniform(plan: Plan) -> str | None:
    """The fills of the parameters as text; None where parts of one hold different ones."""
    texts = []
    for (value, axis), state in plan.fills.items():
        if value.parameter:
            if len(set(state)) != 1:
                return None
            texts.append(f"{value.name}.{axis} {state[0].value}")
    return " and ".join(texts)


def _shown(square: Square, plan: Plan, units: Units) -> str | None:
    """What the new units of the outputs hold, the most that can be said; None where the old ones are not kept."""
    try:
        after = square.grown(plan, units, stretch=LARGE)
        found = [_fill_of(square, i, after, plan, units) for i in range(len(square.outputs))]
    except Mismatch:
        return None
    return ",".join(sorted(fill for fill in set(found) if fill)) or "-"


def _fill_of(square: Square, number: int, after: Observed, plan: Plan, units: Units) -> str:
    value, old, new = square.outputs[number], square.before().outputs[number], after.outputs[number]
    axes = value.axes_with(units.space)
    if not axes:
        require_close(new, old)
        return ""
    term = value.axes[axes[0]]
    order = [Fill.ZERO, Fill.MEAN, Fill.FREE] if plan.kind is Kind.APPEND else [Fill.COPY, Fill.SHARE]
    for fill in order if normal(term) is units.space else [fill for fill in order if fill is not Fill.MEAN]:
        state = (fill,) * occurrences(term, units.space)
        try:
            require_filled(old, new, axes[0], axis_map(term, units), state, term, units)
        except Mismatch:
            continue
        return fill.value
    raise Mismatch("the old units are not kept")


# -- axes that the rule freezes --------------------------------------------------------------------------------


def _frozen(square: Square) -> Iterator[tuple[str, str | None]]:
    """Axes of single operands that the operator's own rule freezes, grown with nothing else."""
    mine = {square.facts.node.name, square.facts.module_path}
    for value in square.sources():
        for axis, term in enumerate(value.axes):
            reasons = [leaf.frozen for leaf in leaves(term) if leaf.frozen]
            if "." in value.name or value.buffer or not reasons or reasons[0].node not in mine:
                continue
            for fill in (Fill.FREE, Fill.ZERO, Fill.COPY):
                shown = _grown_alone(square, value.name, axis, fill)
                yield f"{value.name}.{axis}: the rule freezes it ({reasons[0].text}), {fill.value}", shown


def _grown_alone(square: Square, name: str, axis: int, fill: Fill) -> str | None:
    child = copy.deepcopy(square.graph.module)
    old = child.get_parameter(name).detach()
    first = old.narrow(axis, 0, 1)
    generator = torch.Generator().manual_seed(0)
    new = {
        Fill.ZERO: torch.zeros_like(first),
        Fill.FREE: LARGE * torch.randn(first.shape, generator=generator, dtype=first.dtype),
        Fill.COPY: first,
    }[fill]
    setattr(child, name, nn.Parameter(torch.cat([old, new], axis)))
    try:
        found = observe(child, square.facts.node.name, training=False)
        return ",".join(sorted({_beside(a, b) for a, b in zip(square.before().outputs, found.outputs, strict=True)}))
    except (Mismatch, RuntimeError, ValueError, TypeError, IndexError, AssertionError):  # the operator's own no
        return None


def _beside(old: torch.Tensor, new: torch.Tensor) -> str:
    """What stands behind the old units along the one axis that grew."""
    grown = [axis for axis in range(old.dim()) if new.dim() == old.dim() and new.shape[axis] == old.shape[axis] + 1]
    if new.shape == old.shape:
        require_close(new, old)
        return "-"
    if len(grown) != 1:
        raise Mismatch("another shape")
    size = old.shape[grown[0]]
    require_close(new.narrow(grown[0], 0, size), old)
    added, first = new.narrow(grown[0], size, 1), old.narrow(grown[0], 0, 1)
    if not bool(added.isfinite().all()):
        raise Mismatch("new units that are not finite")
    return Fill.ZERO.value if not added.any() else Fill.COPY.value if torch.equal(added, first) else Fill.FREE.value


def agreed(found: Sequence[Mapping[str, str | None]]) -> list[str]:
    """The hints that held in every case in which they were tried, in at least two."""
    tried: dict[str, list[str | None]] = {}
    for hints in found:
        for key, shown in hints.items():
            tried.setdefault(key, []).append(shown)
    return [f"{key}; it was {all_[0]} in all cases" for key, all_ in tried.items() if len(all_) > 1 and _one(all_)]


def _one(shown: Sequence[str | None]) -> bool:
    return len(set(shown)) == 1 and shown[0] is not None
