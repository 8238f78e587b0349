"""Alive: every new tensor learns within two steps, and copies part."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from graphgrow.ir.positions import positions_along
from graphgrow.layers import Router
from graphgrow.rewrite.apply import replay
from graphgrow.verification.case import Case, Findings
from graphgrow.verification.copies import double_module
from graphgrow.verification.grown import refilled
from graphgrow.verification.places import Places, tensor_places
from graphgrow.verification.sensitivity import pulled, random_loss
from graphgrow.verification.sizes import takes_batch
from graphgrow.verification.unheard import Unheard, uses
from graphgrow.verification.verdict import Check

STEPS = 5
RATE = 1e-2  # of the largest parameter, for the largest gradient: the scale of a model does not matter
BATCH = 8
_DRAWS = 5  # of a parent's weights
STILL = 1e-14  # relative to the largest gradient: below it is rounding
STILL_AT_ALL = 1e-11  # the same where numbers are random and large, so that more is rounded


@dataclass
class _New:
    """The new entries of one parameter: which they are, and whether they ever had a gradient."""

    mask: torch.Tensor
    moved_at: int | None = None


def check_alive(case: Case, found: Findings) -> None:
    """Train the child for a few steps of SGD in float64 on random inputs and a random linear loss.

    Every new tensor must have a gradient in its new entries at one of the first two steps (three where one is tied: an
    embedding that is the head as well), and one of them at the first. Entries along a grown axis that start equal, and
    have a gradient, must not stay equal. Parameters that do not require one, those that the examples cannot reach,
    those whose old entries have none either, and vectors that no output depends on whatever they are (biases in front
    of a batch norm, those of keys), are left out. So is what the parent leaves without a gradient, whatever its weights
    (`Unheard`).

    A parent that passes nothing on (a head of zeros, dead units) leaves nothing alive either. Where the ledger makes
    of it what fails just so, the same ledger applied to refilled weights decides. These are drawn anew where something
    fails again: a unit that was drawn dead, or an expert that no token is routed to, is so by chance, and what can
    never learn fails each time.
    """
    result = _train(case)
    if result is not None and result.failing:
        again = _train(dataclasses.replace(case, child=replay(case.parent, case.entries)))
        if again is not None and result.failing <= again.failing:
            lively = _with_refilled(case)
            if lively is not None:
                found.notes.append("alive: not with the parent's present numbers, so trained with refilled weights")
                result = lively
    if result is None:
        found.notes.append("alive: nothing new requires a gradient")
        return
    still, alike = result.still, result.alike
    found.checks.append(_check("new tensors have a gradient within 2 steps", still, result.count))
    found.checks.append(_check(f"copies part within {STEPS} steps", alike, result.count))


@dataclass(frozen=True)
class _Trained:
    """What a few steps showed.

    Attributes:
        still: names of new tensors without a gradient, or of one of them where none has one at the first step.
        alike: names of tensors whose copies do not part.
        count: of new tensors.
    """

    still: list[str]
    alike: list[str]
    count: int

    @property
    def failing(self) -> set[str]:
        return {*self.still, *self.alike}


def _train(case: Case) -> _Trained | None:
    """Train a copy of the child; None where nothing new requires a gradient."""
    module = double_module(case.child.module).train("train" in case.modes)
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    old = dict(case.parent.module.named_parameters())
    dormant = {name for step in case.steps for name in step.dormant}
    new = _new_entries(parameters, old, case.touched - dormant, tensor_places(case.steps, old))
    if not new:
        return None
    started = {name: p.detach().clone() for name, p in parameters.items()}
    seen: dict[str, torch.Tensor] = {}
    batch = _batch(case)
    for step in range(STEPS):
        gradients = _gradients(case, module, parameters, step, batch)
        top = max((float(g.abs().max()) for g in gradients.values()), default=0.0)
        for name, entries in new.items():
            gradient = gradients.get(name)
            here = 0.0 if gradient is None else float((gradient * entries.mask).abs().max())
            if here > STILL * top and entries.moved_at is None:
                entries.moved_at = step
        for name, gradient in gradients.items():
            large = gradient.abs() * (gradient.abs() > STILL * top)
            seen[name] = torch.maximum(seen.get(name, torch.zeros_like(large)), large)
        _step(parameters, gradients, top)
    last = 2 if any(_is_tied(case, name) for name in new) else 1
    still = [
        name
        for name, entries in new.items()
        if not (entries.moved_at is not None and entries.moved_at <= last) and _others_move(seen, name, entries)
    ]
    still = [
        name
        for name in still
        if not (parameters[name].dim() == 1 and _beside_what_moves(name, seen) and _moot(case, name))
    ]
    if still or all(entries.moved_at != 0 for entries in new.values()):
        unheard = Unheard(case, batch)
        still = [name for name in still if name not in unheard]
        listening = [name for name in new if new[name].moved_at is not None or name not in unheard]
        if not still and listening and all(new[name].moved_at != 0 for name in listening):
            still = [listening[0]]
    alike = [name for name in new if name in old and _stays_equal(name, started, parameters, seen, new[name].mask)]
    return _Trained(still, alike, len(new))


def _with_refilled(case: Case) -> _Trained | None:
    """What fails with each of several draws of the parent's weights; None where nothing new requires a gradient."""
    result: _Trained | None = None
    for number in range(_DRAWS):
        lively = refilled(case, case.probes.seed + number)
        if number:
            _draw_routers(lively.child.module, case.probes.seed + number)
        drawn = _train(lively)
        if drawn is None:
            return None
        if result is not None:
            still = [name for name in result.still if name in drawn.still]
            alike = [name for name in result.alike if name in drawn.alike]
            drawn = _Trained(still, alike, drawn.count)
        result = drawn
        if not result.failing:
            break
    return result


def _draw_routers(module: nn.Module, seed: int) -> None:
    """Give the routers of a mixture other weights: which experts are chosen is theirs to say."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, Router):
            drawn = torch.randn(part.weight.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                part.weight.copy_(drawn)


def _check(what: str, failing: list[str], count: int) -> Check:
    where = failing[0] if failing else "none"
    return Check("alive", what, float(len(failing)), 0.0, where, not failing, (), count)


def _new_entries(
    parameters: dict[str, nn.Parameter], old: dict[str, nn.Parameter], touched: set[str], places: Places
) -> dict[str, _New]:
    found: dict[str, _New] = {}
    for name, parameter in parameters.items():
        if name not in touched:
            continue
        mask = torch.ones_like(parameter, dtype=torch.bool)
        if name in old:
            kept = torch.ones_like(mask)
            for axis, known in places.get(name, {}).items():
                positions = positions_along(known, parameter.shape[axis])
                along = torch.zeros(parameter.shape[axis], dtype=torch.bool, device=mask.device)
                along[positions[positions >= 0].to(mask.device)] = True
                kept &= along.reshape([-1 if i == axis else 1 for i in range(parameter.dim())])
            mask = ~kept
        if bool(mask.any()):
            found[name] = _New(mask)
    return found


def _gradients(
    case: Case, module: nn.Module, parameters: dict[str, nn.Parameter], step: int, batch: int | None
) -> dict[str, torch.Tensor]:
    args, kwargs = case.probes.spec.sample(case.probes.seed + step, batch, torch.float64)
    with torch.enable_grad():
        loss = random_loss(module(*args, **kwargs))
        found = pulled(loss, list(parameters.values()))
    return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}


def _batch(case: Case) -> int | None:
    """Samples enough to reach each unit; None, for as many as the example has, where the parent takes no others."""
    return BATCH if case.probes.spec.batch_size is not None and takes_batch(case, BATCH) else None


def _step(parameters: dict[str, nn.Parameter], gradients: dict[str, torch.Tensor], top: float) -> None:
    with torch.no_grad():
        for name, gradient in gradients.items():
            parameters[name].sub_(gradient, alpha=RATE / (top or 1.0))


def _others_move(seen: dict[str, torch.Tensor], name: str, entries: _New) -> bool:
    """Whether the old entries of a tensor that does not learn do so, or it has none."""
    rest = ~entries.mask
    return not bool(rest.any()) or (name in seen and bool((seen[name] * rest).any()))


def _is_tied(case: Case, name: str) -> bool:
    """Whether several operators use a parameter: its new zeros are written as well as read, which takes a step more."""
    using = [node for node in case.child.module.graph.nodes if uses(node, name)]
    return sum(len(node.users) if node.op == "get_attr" else 1 for node in using) > 1


def _beside_what_moves(name: str, seen: dict[str, torch.Tensor]) -> bool:
    """Whether another parameter of its module has a gradient."""
    owner = name.rpartition(".")[0]
    return any(other.rpartition(".")[0] == owner and other != name and bool(seen[other].any()) for other in seen)


def _moot(case: Case, name: str) -> bool:
    """Whether a parameter has no gradient with random numbers in all of them either."""
    module = double_module(case.child.module).train("train" in case.modes)
    parameters = {key: p for key, p in module.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(case.probes.seed)
    with torch.no_grad():
        for parameter in parameters.values():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(drawn.to(parameter.device))
    gradients = _gradients(case, module, parameters, STEPS, _batch(case))
    top = max((float(g.abs().max()) for g in gradients.values()), default=0.0)
    return name not in gradients or float(gradients[name].abs().max()) <= STILL_AT_ALL * top


def _stays_equal(
    name: str,
    started: dict[str, torch.Tensor],
    parameters: dict[str, nn.Parameter],
    seen: dict[str, torch.Tensor],
    mask: torch.Tensor,
) -> bool:
    """Whether two slices along the first axis, one of them new, that began as equal and had gradients are equal yet."""
    if name not in seen or mask.dim() < 2 or not bool(mask.flatten(1).all(1).any()):
        return False
    rows, now, moved = started[name].flatten(1), parameters[name].detach().flatten(1), seen[name].flatten(1)
    new = torch.nonzero(mask.flatten(1).all(1)).flatten()
    for row in new.tolist():
        twins = torch.nonzero((rows == rows[row]).all(1)).flatten().tolist()
        for twin in twins:
            if twin != row and bool(moved[row].any()) and bool((now[twin] == now[row]).all()):
                return True
    return False
