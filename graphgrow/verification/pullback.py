"""Gradients: the lift's transpose, applied to the child's gradients, gives the parent's; those of the inputs agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.draws import Drawing, begin_random
from graphgrow.verification.case import OF_NOISE, SLACK, UNIT, Case, Findings
from graphgrow.verification.copies import wide_network
from graphgrow.verification.numbers import Numbers, one_ulp
from graphgrow.verification.places import cut
from graphgrow.verification.probes import Inputs
from graphgrow.verification.sensitivity import own_parameters, pulled, random_loss
from graphgrow.verification.worst import Worst, errors, largest

Tensors = dict[str, torch.Tensor]
ACCURACY = 1e-10  # of a sum over all entries, relative to the sum of their magnitudes


def compare_gradients(case: Case, found: Findings) -> None:
    """In float64 and each mode of the case, for a random linear loss of all outputs.

    With the lift E, which gives the child's parameters for any of the parent's, E^T grad(g) = grad(f). E is read off
    the ledger itself, for a random direction v: E v = ledger(w + v) - ledger(w), and <grad(f), v> = <grad(g), E v>
    must hold. Parameters that growth left alone, and the inputs, are compared entry by entry.
    """
    base = wide_network(case.parent)
    direction = _direction(base, case.probes.seed)
    lifted = _difference(replay(_moved(base, direction, 1.0), case.entries), replay(base, case.entries))
    for mode in case.modes:
        untouched, inputs = Worst(), Worst()
        probe = case.probes.drawn(mode, torch.float64)[0]
        mine, reference = _gradients(case, case.parent.module, probe, mode)
        noisy, moved = _gradients(case, case.parent.module, probe, mode, noise=True)
        theirs, trial = _gradients(case, case.child.module, probe, mode)
        unit = UNIT * max(
            (float(largest(g)) for g in (*mine.values(), *reference)), default=0.0
        )  # what cancels out is rounded first
        for name in mine.keys() & theirs.keys() - case.touched:
            _see(untouched, mine[name], theirs[name], noisy[name], unit, name)
        for number, (a, b, c) in enumerate(zip(reference, trial, moved, strict=True)):
            _see(inputs, a, b, c, unit, f"input {number}")
        found.checks.append(untouched.check("gradients", f"parameters as they were, {mode}", OF_NOISE))
        if reference:
            found.checks.append(inputs.check("gradients", f"inputs, {mode}", OF_NOISE))
        pulled = _pulled_back(mine, noisy, theirs, direction, lifted)
        if not pulled.passed and (case.resting or _bends(base, direction, lifted, theirs, case)):
            found.notes.append("gradients: this growth is no linear map of the old parameters; not pulled back")
        else:
            found.checks.append(pulled.check("gradients", f"pulled back, {mode}", f"{ACCURACY:g} of all terms"))


def _pulled_back(mine: Tensors, noisy: Tensors, theirs: Tensors, direction: Tensors, lifted: Tensors) -> Worst:
    """Compare <grad(f), v> with <grad(g), E v>; where they differ, name the parameter whose terms do so most."""
    terms = {name: float((g * direction[name]).sum()) for name, g in mine.items()}
    others = {name: float((g * lifted[name]).sum()) for name, g in theirs.items() if name in lifted}
    scale = sum(float((g * direction[name]).abs().sum()) for name, g in mine.items())
    noise = abs(sum(terms.values()) - sum(float((g * direction[name]).sum()) for name, g in noisy.items()))
    error = abs(sum(terms.values()) - sum(others.values()))
    apart = {name: abs(terms.get(name, 0.0) - others.get(name, 0.0)) for name in terms.keys() | others.keys()}
    worst = Worst()
    limit = torch.tensor(SLACK * noise + ACCURACY * scale, dtype=torch.float64)
    worst.see(torch.tensor(error, dtype=torch.float64), limit, max(apart, key=lambda name: apart[name], default=""))
    return worst


def _see(worst: Worst, mine: torch.Tensor, theirs: torch.Tensor, noisy: torch.Tensor, unit: float, where: str) -> None:
    if mine.shape != theirs.shape:
        worst.differ(f"{where} (shape)")
    else:
        worst.see(*errors(theirs, mine, SLACK * largest(mine - noisy) + unit), where)


def _gradients(
    case: Case, module: fx.GraphModule, probe: Inputs, mode: str, noise: bool = False
) -> tuple[Tensors, list[torch.Tensor]]:
    """Gradients of all parameters by name, and of the inputs of floating point; 0 where there is none."""
    numbers = Numbers(torch.float64, one_ulp(case.probes.seed) if noise else None, keep=0)
    wanted = {name for name, p in module.named_parameters() if p.is_floating_point()}
    twin, leaves = own_parameters(module.train(mode == "train"), numbers, wanted)
    begin_random(case.probes.seed)
    with torch.enable_grad():
        args, kwargs = pytree.tree_map(_tracked, case.inputs_of(module, probe))
        inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if _is_tracked(leaf)]
        run = Drawing(twin, {} if module is case.parent.module else case.counterparts.places)
        loss = random_loss(case.outputs_of(module, run(*args, **kwargs)))
        wrt = [*leaves.values(), *inputs]
        found = pulled(loss, wrt)
    whole = [torch.zeros_like(x) if g is None else g for g, x in zip(found, wrt, strict=True)]
    rest = iter(whole[len(leaves) :])
    of_inputs = pytree.tree_map(lambda leaf: next(rest) if _is_tracked(leaf) else None, (args, kwargs))
    old = of_inputs if module is case.parent.module else cut(of_inputs, case.interface[0])
    of_old = [gradient for gradient in pytree.tree_leaves(old) if gradient is not None]
    return dict(zip(leaves, whole, strict=False)), of_old


def _tracked(leaf: Any) -> Any:
    floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.detach().clone().requires_grad_() if floating else leaf


def _is_tracked(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad


def _direction(network: Network, seed: int) -> Tensors:
    """A normal direction for each parameter, as large as the parameter itself."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64) * (largest(p) or 1.0)
        for name, p in network.module.named_parameters()
    }


def _moved(network: Network, direction: Tensors, step: float) -> Network:
    """The network with its parameters moved along a direction; tied ones once."""
    module = Editor(network.module, share=False).finish()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in direction:
                parameter.add_(direction[name].to(parameter.device), alpha=step)
    return dataclasses.replace(network, module=module)


def _difference(after: Network, before: Network) -> Tensors:
    old = dict(before.module.named_parameters())
    return {name: p.detach() - old[name].detach() for name, p in after.module.named_parameters()}


def _bends(base: Network, direction: Tensors, lifted: Tensors, theirs: Tensors, case: Case) -> bool:
    """Whether the ledger is no affine map of the parameters, where a gradient tells."""
    grown = (replay(_moved(base, direction, step), case.entries) for step in (2.0, 1.0))
    again = _difference(*grown)
    return any(
        largest(again[name] - lift) > 1e-9 * (1 + largest(lift)) and largest(theirs[name]) > 0
        for name, lift in lifted.items()
        if name in theirs
    )
