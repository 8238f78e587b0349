"""gg.verify: does the grown network compute what its parent computes, and could the check have seen it if not?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.trace import capture
from graphgrow.errors import GraphGrowError, NotPreserved
from graphgrow.ir.inputs import InputSpec
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.ledger import Entry
from graphgrow.rewrite.network import Network, Step
from graphgrow.verification.compare import Worst, compare_buffers, compare_outputs, run_pair
from graphgrow.verification.copies import (
    depends_on_mode,
    double_module,
    double_network,
    own_buffers,
    perturb,
    refill,
)
from graphgrow.verification.places import Counterparts, tensor_places
from graphgrow.verification.probes import Inputs, Probes
from graphgrow.verification.sensitivity import degeneracy, weight_that_matters
from graphgrow.verification.verdict import Check, Verdict, conclude

SLACK = 32.0  # admitted multiple of the measured re-association noise
UNIT = 16 * torch.finfo(torch.float64).eps  # admitted besides, relative to the largest output
PLANTED = 1e-6  # relative size of the planted mistake, which must be seen
REFILLS = 3


@dataclass
class _Findings:
    checks: list[Check]
    doubts: list[str]
    notes: list[str]
    part: str | None = None


def verify(
    before: Network | nn.Module,
    after: Network | nn.Module,
    inputs: Any = None,
    *,
    seed: int = 0,
    batch_sizes: tuple[int, ...] = (1, 3),
) -> Verdict:
    """Compare a network with what it was grown from.

    In float64: every node that both graphs have, on what really arrives there, within 1e-12 of the local magnitude;
    the outputs, within 32 times the reference's own noise under a perturbation of one ulp; buffers after a step in
    train mode. In the parameters' own dtype: the error against float64 is at most 4 times the parent's plus the
    rounding of one sum. Dropout and stochastic depth are off. A mistake of one part in 10^6 is planted each time,
    and must be seen. Where the outputs are degenerate (zero-initialised heads), the base is refilled with lively
    weights and the ledger applied again; without a ledger the verdict is then undetermined.

    Where a rewrite rounds to the parameters' dtype (means, rescaled norms), exactness is shown by applying the same
    ledger in float64, and the grown network is checked to be what the ledger makes in its own dtype.

    Args:
        before: the parent: a graph, the module that was traced, or any other with the same inputs.
        after: the grown graph (or any module).
        inputs: inputs of the user's own to compare on as well: a tensor or a tuple.
        seed: of the random inputs.
        batch_sizes: compared in eval mode besides the example's own.

    Raises:
        NotPreserved: if neither side says what its inputs are, or a parameter is NaN or on the meta device.
    """
    spec = next((side.inputs for side in (before, after) if isinstance(side, Network)), None)
    if spec is None:
        if inputs is None:
            raise NotPreserved("gg.verify of two plain modules wants inputs: gg.verify(a, b, inputs=x)")
        spec = InputSpec.of(inputs)
    for side in (before, after):
        _refuse(side.module if isinstance(side, Network) else side)
    own = None if inputs is None else ((inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs))
    probes = Probes(spec, own, seed, batch_sizes)
    found = _Findings([], [], [])
    with torch.random.fork_rng(devices=[]):
        if isinstance(after, Network) and not isinstance(before, Network):
            before = _as_parent(before, after) or before
        if isinstance(before, Network) and isinstance(after, Network):
            entries = after.ledger.after(before.ledger)
            if entries is not None:
                return _verify_grown(before, after, entries, probes, found)
        return _verify_modules(before, after, probes, found)


def _refuse(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise NotPreserved(f"`{name}` is on the meta device and holds no numbers to compare")
        if parameter.is_floating_point() and bool(torch.isnan(parameter).any()):
            raise NotPreserved(f"`{name}` holds NaN, so that nothing can be compared")


def _as_parent(module: nn.Module, after: Network) -> Network | None:
    """The network of a plain module, if the ledger of `after` makes the same architecture of it; else None."""
    args, kwargs = after.inputs.sample()
    try:
        found = capture(module, args, kwargs)
        base = Network(found.module, after.inputs, way=found.way, modes=found.modes, notes=found.notes)
        grown = replay(base, after.ledger)
    except GraphGrowError:
        return None
    mine = [(name, t.shape, t.dtype) for name, t in grown.module.state_dict().items()]
    return base if mine == [(name, t.shape, t.dtype) for name, t in after.module.state_dict().items()] else None


# -- parent and child of one ledger ------------------------------------------------------------------------------


def _verify_grown(
    before: Network, after: Network, entries: tuple[Entry, ...], probes: Probes, found: _Findings
) -> Verdict:
    steps = after.steps[len(before.ledger) :]
    modes = tuple(m for m in ("eval", "train") if m in before.modes and all(m in step.exact_in for step in steps))
    if "train" in before.modes and "train" not in modes:
        found.notes.append("declared exact in eval mode alone: dropout draws a mask for each copy")
    parent = double_network(before)
    rounded = any(step.rounded for step in steps)
    child = replay(parent, entries, share=False) if rounded else double_network(after)
    if rounded:
        found.notes.append("this growth rounds to the parameters' dtype: its ledger was applied in float64 as well")
        _check_is_replay(before, after, entries, probes, found)
    obstacle = _obstacle(parent, probes)
    if obstacle:
        found.doubts.append(f"the model cannot be run in float64: {obstacle}")
        return conclude(found.checks, (), found.doubts, found.notes, None)
    degenerate = _compare_networks(parent, child, steps, modes, probes, found)
    if degenerate:
        found.notes.append(f"{degenerate}: compared on refilled weights as well")
        _compare_refilled(parent, entries, steps, modes, probes, found)
    _check_own_dtype(before, after, parent, probes, found)
    return conclude(found.checks, modes, found.doubts, found.notes, found.part)


def _obstacle(parent: Network, probes: Probes) -> str:
    """Why a model cannot be run in float64, in torch's words: its code names a narrower dtype, say."""
    args, kwargs = probes.drawn("eval", torch.float64)[0]
    try:
        with torch.no_grad():
            _in_mode(parent.module, "eval")(*args, **kwargs)
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return ""


def _compare_networks(
    parent: Network, child: Network, steps: tuple[Step, ...], modes: tuple[str, ...], probes: Probes, found: _Findings
) -> str:
    """All float64 checks; returns why the outputs are degenerate, if they are."""
    counterparts = Counterparts.of(steps)
    degenerate = ""
    if modes == ("eval", "train") and not depends_on_mode(parent.module) and not depends_on_mode(child.module):
        modes = ("eval",)
        found.notes.append("with noise off no operator here depends on the mode: train mode computes the same")
    moved = perturb(parent.module, probes.seed)
    for mode in modes:
        nodes, outputs, buffers = Worst(), Worst(), Worst()
        seen: list[Any] = []
        noises: list[Any] = []
        for probe in probes.drawn(mode, torch.float64):
            with torch.no_grad():  # each probe starts from the same buffers
                originals = (parent.module, child.module, moved)
                reference, trial, noisy = (_in_mode(own_buffers(module), mode) for module in originals)
                _seeded(probes.seed)
                noise = noisy(*probe[0], **probe[1])
                _seeded(probes.seed)
                first, second = run_pair(reference, trial, probe, counterparts, nodes)
                noise = _noise_of_both(first, second, noise, trial, probe, mode, probes.seed)
                compare_outputs(first, second, noise, outputs, SLACK, UNIT)
                seen.append(first)
                noises.append(noise)
            if mode == "train":
                compare_buffers(reference, trial, noisy, tensor_places(steps), buffers, SLACK, UNIT)
        found.checks.append(nodes.check(mode, "nodes, float64"))
        found.checks.append(outputs.check(mode, "outputs, float64"))
        if mode == "train" and buffers.ratio >= 0:
            found.checks.append(buffers.check(mode, "buffers after the step"))
        found.part = found.part or nodes.first_failure
        if mode == modes[0]:
            degenerate = degeneracy(seen)
            if not degenerate and outputs.passed:
                degenerate = _plant(child, mode, seen[0], noises[0], probes, found)
    return degenerate


def _noise_of_both(
    first: Any, second: Any, noise: Any, trial: fx.GraphModule, probe: Inputs, mode: str, seed: int
) -> Any:
    """The parent's noisy outputs; where those admit less, outputs moved by as much as the child's own noise.

    A reference that is exactly zero has no noise, but fresh weights on units that are zero up to rounding do.
    """
    alone = Worst()
    compare_outputs(first, second, noise, alone, SLACK, UNIT)
    if alone.passed:
        return noise
    _seeded(seed)
    moved = _in_mode(perturb(trial, seed), mode)(*probe[0], **probe[1])
    return _widened(first, noise, second, moved)


def _widened(first: Any, noise: Any, second: Any, moved: Any) -> Any:
    """The noisy outputs, moved further where the child's noise is the larger; unlike structures stay as they are."""
    structures = {str(pytree.tree_structure(item)) for item in (first, noise, second, moved)}
    return noise if len(structures) > 1 else pytree.tree_map(_wider, first, noise, second, moved)


def _wider(first: Any, noise: Any, second: Any, moved: Any) -> Any:
    if not isinstance(first, torch.Tensor) or not first.is_floating_point() or first.shape != second.shape:
        return noise
    by_child = (second - moved).abs().nan_to_num(posinf=0.0).max()
    by_parent = (first - noise).abs().nan_to_num(posinf=0.0).max()
    return noise if by_parent >= by_child else first + by_child


def _compare_refilled(
    parent: Network,
    entries: tuple[Entry, ...],
    steps: tuple[Step, ...],
    modes: tuple[str, ...],
    probes: Probes,
    found: _Findings,
) -> None:
    why = ""
    for attempt in range(REFILLS):
        lively = refill(parent, probes.seed + attempt)
        why = _compare_networks(lively, replay(lively, entries, share=False), steps, modes, probes, found)
        if not why:
            return
    found.doubts.append(f"even with refilled weights {why}")


def _check_is_replay(
    before: Network, after: Network, entries: tuple[Entry, ...], probes: Probes, found: _Findings
) -> None:
    """The grown network must be, to the bit, what its ledger makes of the parent in the parent's own dtype."""
    again = replay(before, entries)
    present = dict([*after.module.named_parameters(), *after.module.named_buffers()])
    made = [*again.module.named_parameters(), *again.module.named_buffers()]
    differing = [name for name, t in made if name not in present or not _same_bits(t, present[name])]
    if not differing:
        found.notes.append("every tensor is, to the bit, what the ledger makes of the parent")
        return
    first, second = double_module(again.module).eval(), double_module(after.module).eval()
    worst = Worst()
    with torch.no_grad():
        for probe in probes.drawn("eval", torch.float64):
            noisy = perturb(first, probes.seed)(*probe[0], **probe[1])
            compare_outputs(first(*probe[0], **probe[1]), second(*probe[0], **probe[1]), noisy, worst, SLACK, UNIT)
    found.checks.append(worst.check("eval", "against the replayed ledger"))
    found.notes.append(f"{len(differing)} tensors differ from what the ledger makes, `{differing[0]}` first")


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


# -- any two modules ---------------------------------------------------------------------------------------------


def _verify_modules(
    before: Network | nn.Module, after: Network | nn.Module, probes: Probes, found: _Findings
) -> Verdict:
    """Outputs alone, in eval mode: nothing is known of how the two belong together."""
    sides = [double_module(side.module if isinstance(side, Network) else side).eval() for side in (before, after)]
    found.notes.append("no common ledger: outputs were compared, in eval mode")
    worst, seen = Worst(), []
    for number, probe in enumerate(probes.drawn("eval", torch.float64)):
        with torch.no_grad():
            noise = perturb(sides[0], probes.seed + number)(*probe[0], **probe[1])
            first, second = (side(*probe[0], **probe[1]) for side in sides)
            compare_outputs(first, second, noise, worst, SLACK, UNIT)
            seen.append(first)
    found.checks.append(worst.check("eval", "outputs, float64"))
    degenerate = degeneracy(seen)
    if degenerate:
        found.doubts.append(f"{degenerate}, and without a common ledger nothing else can be tried")
    return conclude(found.checks, ("eval",), found.doubts, found.notes, None)


# -- the parts ---------------------------------------------------------------------------------------------------


def _in_mode(module: fx.GraphModule, mode: str) -> fx.GraphModule:
    module.train(mode == "train")
    return module


def _seeded(seed: int) -> None:
    torch.manual_seed(seed)


def _plant(child: Network, mode: str, first: Any, noise: Any, probes: Probes, found: _Findings) -> str:
    """Change one weight that matters by one part in 10^6 and see the comparison with the parent's output fail.

    A weight of zero, in a block that is closed, is set to 10^-6 of the largest weight beside it, or of 1.

    Returns:
        Why it was not seen, if it was not: gains that are nearly closed hide what lies behind them.
    """
    probe = probes.drawn(mode, torch.float64)[0]
    wrong = _in_mode(double_module(child.module), mode)
    name, position = weight_that_matters(wrong, probe, {n for step in child.steps for n in step.touched})
    with torch.no_grad():
        parameter = wrong.get_parameter(name)
        place = torch.unravel_index(torch.tensor(position), parameter.shape)
        largest = float(parameter.abs().max()) or 1.0
        parameter[place] = parameter[place] * (1 + PLANTED) if parameter[place] != 0 else PLANTED * largest
        worst = Worst()
        compare_outputs(first, wrong(*probe[0], **probe[1]), noise, worst, SLACK, UNIT)
    if worst.passed:
        return f"a mistake of 1e-6 planted in `{name}` does not show at the outputs"
    found.notes.append(f"a mistake of 1e-6 planted in `{name}` was seen: error {worst.error:.1e}")
    return ""


def _check_own_dtype(before: Network, after: Network, reference: Network, probes: Probes, found: _Findings) -> None:
    """In the parameters' own dtype: err(child) <= 4 err(parent) + (8 + sqrt(K)) u max|f|, err against float64."""
    dtypes = {p.dtype for p in before.module.parameters() if p.is_floating_point()}
    if dtypes == {torch.float64} or not dtypes:
        return
    unit = max(torch.finfo(dtype).eps for dtype in dtypes) / 2
    reduction = max((p[0].numel() for p in after.module.parameters() if p.dim() > 1), default=1)
    worst = Worst()
    modes = [(side, side.module.training) for side in (before, after)]
    flags = [(m, m.training) for side, _ in modes for m in side.module.modules()]
    try:
        with torch.no_grad():
            for narrow, wide in zip(probes.drawn("eval", None), probes.drawn("eval", torch.float64), strict=True):
                exact = reference.module.eval()(*wide[0], **wide[1])
                first = before.module.eval()(*narrow[0], **narrow[1])
                second = after.module.eval()(*narrow[0], **narrow[1])
                spread, rounding = _spread(exact, first), (8 + math.sqrt(reduction)) * unit
                alone = Worst()
                compare_outputs(exact, second, spread, alone, 4.0, rounding)
                if not alone.passed:
                    moved = perturb(after.module, probes.seed)(*narrow[0], **narrow[1])
                    spread = _widened(exact, spread, _spread(exact, second), _spread(exact, moved))
                compare_outputs(exact, second, spread, worst, 4.0, rounding)
    finally:
        for module, training in flags:
            module.training = training
    found.checks.append(worst.check("eval", f"outputs, {', '.join(sorted(str(d)[6:] for d in dtypes))}"))


def _spread(exact: Any, narrow: Any) -> Any:
    """The parent's outputs in its own dtype, in the place of noise: its error is what the child's is held against."""
    return pytree.tree_map(
        lambda _, b: b.double() if isinstance(b, torch.Tensor) and b.is_floating_point() else b, exact, narrow
    )
