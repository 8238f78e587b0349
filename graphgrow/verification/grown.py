"""Parent and child of one ledger, in float64: node by node, outputs, and buffers after a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphgrow.errors import Declined
from graphgrow.network.network import Network
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.text import parse_mutation
from graphgrow.verification.case import OF_NOISE, SLACK, UNIT, Case, Findings, Noise
from graphgrow.verification.copies import refill, wide_network
from graphgrow.verification.noise import depends_on_mode
from graphgrow.verification.numbers import Numbers
from graphgrow.verification.outputs import compare_buffers, compare_outputs, outputs_agree, widened
from graphgrow.verification.places import tensor_places
from graphgrow.verification.planted import plant
from graphgrow.verification.probes import Inputs
from graphgrow.verification.runner import NodeFails
from graphgrow.verification.sensitivity import apart_from_inputs, apart_from_tensors, degeneracy
from graphgrow.verification.sizes import spoken
from graphgrow.verification.squares import LOCAL_TOLERANCE, run_beside, run_pair
from graphgrow.verification.worst import Worst

REFILLS = 3
LOCAL = f"{LOCAL_TOLERANCE:g} of the local magnitude |W||x| + |b|"


@dataclass(frozen=True)
class _Seen:
    """What a comparison of outputs saw on one probe.

    Attributes:
        probe: the inputs.
        outputs: the parent's.
        admitted: the noisy outputs that the child's were held against; the parent's own where those were enough.
        noise: of the parent there.
    """

    probe: Inputs
    outputs: Any
    admitted: Any
    noise: Noise

    @property
    def limit(self) -> Any:
        """The noisy outputs with the most that the comparison would have admitted."""
        return self.noise.outputs() if self.admitted is self.outputs else self.admitted

    @property
    def size(self) -> int:
        """Number of elements of the inputs."""
        return sum(leaf.numel() for leaf in pytree.tree_leaves(self.probe) if isinstance(leaf, torch.Tensor))


def compare_grown(case: Case, found: Findings) -> None:
    """All float64 checks, on refilled weights as well where the outputs of the present ones would hide a mistake.

    Where growth rounds, the child must also be what its ledger makes of the parent in the parameters' own dtype.
    """
    if case.rounded:
        found.notes.append("this growth rounds to the parameters' dtype: its ledger was applied in float64 as well")
        _compare_with_replay(case, found)
    degenerate = _compare(case, found)
    if not degenerate:
        return
    found.notes.append(f"{degenerate}: compared on refilled weights as well")
    for attempt in range(REFILLS):
        before = len(found.checks)
        degenerate = _compare(refilled(case, case.probes.seed + attempt), found)
        found.checks[before:] = [dataclasses.replace(c, what=f"{c.what}, refilled") for c in found.checks[before:]]
        if not degenerate:
            return
    found.doubts.append(
        f"even with refilled weights {degenerate}, as behind a sign or a rounding; node by node both compute the same"
    )


def refilled(case: Case, seed: int) -> Case:
    """The same ledger applied to the parent with lively weights."""
    base: Network = wide_network(case.parent) if case.rounded else case.parent
    lively = refill(base, seed)
    try:
        child = replay(lively, case.entries, admit=case.resting)
    except Declined:  # a mutation rests on numbers that the parent had: those stay
        lively = refill(base, seed, _rests_on(case))
        child = replay(lively, case.entries)
    return dataclasses.replace(case, parent=lively, child=child, wide=Numbers(torch.float64))


def _rests_on(case: Case) -> frozenset[str]:
    """Names of the parameters for whose present numbers alone the mutations are exact."""
    names: set[str] = set()
    current = case.parent
    for entry in case.entries:
        names |= parse_mutation(entry.mutation).rests_on(current)
        current = replay(current, [entry])
    return frozenset(names)


def _compare(case: Case, found: Findings) -> str:
    """All float64 checks on the present weights; returns why the outputs are degenerate, if they are."""
    modes = case.modes
    sides = (case.parent.module, case.child.module)
    if len(modes) > 1 and not any(map(depends_on_mode, sides)):
        modes = modes[:1]
        found.notes.append("no operator here depends on the mode: train mode computes the same")
    degenerate = hidden = ""
    for mode in modes:
        seen, agree = _compare_in(mode, case, found)
        if mode == modes[0]:
            _compare_at_sizes(mode, case, found)
            parent, answers = case.parent.module, [one.outputs for one in seen]
            degenerate = degeneracy(answers, apart_from_inputs(parent), apart_from_tensors(parent))
        # A mistake behind a gate that statistics of earlier batches leave saturated shows with those of this batch.
        if not degenerate and agree and (mode == modes[0] or hidden):
            hidden = _hidden(mode, case, seen, found)
    return degenerate or hidden


def _hidden(mode: str, case: Case, seen: Sequence[_Seen], found: Findings) -> str:
    """Why a planted mistake does not show, if it does not: on the smallest inputs, nor on those like the example."""
    smallest, why = min(seen, key=lambda one: one.size), ""
    for one in (smallest,) if smallest is seen[0] else (smallest, seen[0]):
        why = plant(case, mode, one.probe, one.outputs, one.limit, found)
        if not why:
            break
    return why


def _compare_in(mode: str, case: Case, found: Findings) -> tuple[list[_Seen], bool]:
    """The checks of one mode; returns what the parent was seen to put out, and whether the child's agrees."""
    nodes, outputs, buffers = Worst(), Worst(), Worst()
    seen: list[_Seen] = []
    probes = case.probes.drawn(mode, torch.float64)
    with torch.no_grad():
        for number, probe in enumerate(probes):
            reference = case.runner(case.parent.module, probe, mode)
            trial = case.runner(case.child.module, probe, mode)
            try:
                first, second = run_pair(reference, trial, case.counterparts, nodes)
            except NodeFails as failure:
                example = number == 0 and mode == "eval"
                last = number == len(probes) - 1 and not seen
                if not failure.of_parent or example or last:
                    raise
                if mode == "eval":
                    case.failing.add(number)
                if case.probes.own is None or number < len(probes) - 1:
                    found.notes.append(f"{failure} on inputs of another batch size, in the parent itself: not compared")
                elif mode == case.modes[0]:  # in train mode a batch of one may be too small
                    found.doubts.append(f"the parent itself cannot be run on the inputs that were given: {failure}")
                continue
            noise = Noise(case, case.parent.module, probe, mode)
            admitted = admitted_noise(case, mode, probe, first, second, noise)
            compare_outputs(first, second, admitted, outputs, SLACK, UNIT)
            seen.append(_Seen(probe, first, admitted, noise))
            if mode == "eval":
                case.exact[case.parent.module, number] = first
            if mode == "train":
                mine, theirs = reference.buffers(), trial.buffers()
                places = tensor_places(case.steps, mine)
                compare_buffers(mine, theirs, noise.buffers, places, buffers, SLACK, UNIT)
    found.checks.append(nodes.check(mode, "nodes, float64", LOCAL))
    found.checks.append(outputs.check(mode, "outputs, float64", OF_NOISE))
    if mode == "train" and buffers.count:
        found.checks.append(buffers.check(mode, "buffers after the step", OF_NOISE))
    found.part = found.part or nodes.first_failure
    return seen, outputs.passed


def _compare_at_sizes(mode: str, case: Case, found: Findings) -> None:
    """The outputs at other sizes of the inputs than the example's: what a constant in their place would be right at.

    Nodes are not compared: where old units are along axes that positions are folded into is known at the example's.
    """
    for spec in case.sizes:
        probe, worst = spec.sample(case.probes.seed, dtype=torch.float64), Worst()
        with torch.no_grad():
            outputs = outputs_beside(case, mode, probe, spoken(spec), found)
            if outputs is None:
                continue
            first, second = outputs
            noise = Noise(case, case.parent.module, probe, mode)
            admitted = admitted_noise(case, mode, probe, first, second, noise)
            compare_outputs(first, second, admitted, worst, SLACK, UNIT)
        found.checks.append(worst.check(mode, f"outputs, float64, {spoken(spec)}", OF_NOISE))


def outputs_beside(case: Case, mode: str, probe: Inputs, said: str, found: Findings) -> tuple[Any, Any] | None:
    """The outputs of both on inputs that are not like the example; None, with a note, where the parent fails on them.

    Raises:
        NodeFails: where the child alone does.
    """
    reference, trial = (case.runner(side.module, probe, mode) for side in (case.parent, case.child))
    try:
        return run_beside(reference, trial, case.counterparts)
    except NodeFails as failure:
        if not failure.of_parent:
            found.notes.append(f"on inputs of {said}, which the parent takes:")
            raise
        found.notes.append(f"{failure} on inputs of {said}, in the parent itself: not compared")
        return None


def admitted_noise(case: Case, mode: str, probe: Inputs, first: Any, second: Any, noise: Noise) -> Any:
    """The noisy outputs that the child's are held against; the parent's own, without noise, where they agree even so.

    Where the parent's noise admits too little, outputs moved by as much as the child's own: a reference that is
    exactly zero has no noise, but fresh weights on units that are zero up to rounding do.
    """
    if outputs_agree(first, second, first, SLACK, UNIT):
        return first
    if outputs_agree(first, second, noise.outputs(), SLACK, UNIT):
        return noise.outputs()
    return widened(first, noise.outputs(), second, Noise(case, case.child.module, probe, mode).outputs())


def _compare_with_replay(case: Case, found: Findings) -> None:
    """The grown network must be, to the bit, what its ledger makes of the parent in the parent's own dtype."""
    again = replay(case.before, case.entries)
    present = dict([*case.after.module.named_parameters(), *case.after.module.named_buffers()])
    made = [*again.module.named_parameters(), *again.module.named_buffers()]
    differing = [name for name, t in made if name not in present or not _same_bits(t, present[name])]
    if not differing:
        found.notes.append("every tensor is, to the bit, what the ledger makes of the parent")
        return
    worst = Worst()
    with torch.no_grad():
        for probe in case.drawn(torch.float64).values():
            first, second = (case.runner(side.module, probe, "eval").finish() for side in (again, case.after))
            compare_outputs(first, second, case.noisy(again.module, probe, "eval").finish(), worst, SLACK, UNIT)
    found.checks.append(worst.check("eval", "against the replayed ledger", OF_NOISE))
    found.notes.append(f"{len(differing)} tensors differ from what the ledger makes, `{differing[0]}` first")


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
