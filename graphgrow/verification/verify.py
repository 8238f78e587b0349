"""gg.verify: does the grown network compute what its parent computes, and could the check have seen it if not?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from graphgrow.capture.model.running import in_mode
from graphgrow.capture.trace import capture
from graphgrow.errors import GraphGrowError, NotPreserved
from graphgrow.ir.inputs import InputSpec
from graphgrow.network.ledger import Entry
from graphgrow.network.network import Network
from graphgrow.rewrite.apply import replay
from graphgrow.verification.alive import check_alive
from graphgrow.verification.case import Case, Findings
from graphgrow.verification.extremes import compare_extremes
from graphgrow.verification.grown import compare_grown
from graphgrow.verification.kept import check_kept
from graphgrow.verification.lattice import compare_on_lattice
from graphgrow.verification.low_precision import compare_in_dtype, compare_under_autocast
from graphgrow.verification.narrow import compare_own_dtype
from graphgrow.verification.probes import Probes
from graphgrow.verification.pullback import compare_gradients
from graphgrow.verification.runner import NodeFails
from graphgrow.verification.sizes import Sizes, asked_sizes, found_sizes
from graphgrow.verification.unrelated import compare_unrelated
from graphgrow.verification.verdict import Check, Verdict, conclude

DEFAULT_MODES = ("eval", "train")
FURTHER: dict[str, Callable[[Case, Findings], None]] = {
    "lattice": compare_on_lattice,
    "extremes": compare_extremes,
    "gradients": compare_gradients,
    "alive": check_alive,
    "float16": partial(compare_in_dtype, dtype=torch.float16),
    "bfloat16": partial(compare_in_dtype, dtype=torch.bfloat16),
    "autocast": compare_under_autocast,
}


def verify(
    before: Network | nn.Module,
    after: Network | nn.Module,
    inputs: Any = None,
    *,
    seed: int = 0,
    batch_sizes: tuple[int, ...] = (1, 3),
    modes: Sequence[str] | Literal["all"] = DEFAULT_MODES,
    sizes: Sizes | None = None,
) -> Verdict:
    """Compare a network with what it was grown from.

        verdict = gg.verify(graph, grown)
        print(verdict)  # verdict.preserved is True, False, or None where nothing can be said

    In float64: every node that both graphs have, on what really arrives there, within 1e-12 of the local magnitude;
    the outputs, within 32 times the reference's own noise under a perturbation of one ulp; buffers after a step in
    train mode. In the parameters' own dtype: the error against float64 is at most 4 times the parent's plus the
    rounding of one sum. Dropout and stochastic depth are off. A mistake of one part in 10^6 is planted each time,
    and must be seen. Where the outputs are degenerate (zero-initialised heads), the base is refilled with lively
    weights and the ledger applied again; without a ledger the verdict is then undetermined.

    Where a rewrite rounds to the parameters' dtype (means, rescaled norms), exactness is shown by applying the same
    ledger in float64, and the grown network is checked to be what the ledger makes in its own dtype.

    Nothing is copied as a whole: each node's tensors are converted to float64 when it runs. The exceptions are
    networks without a common ledger, growth that rounds, and refilled weights, which need a copy of the model.

    Args:
        before: the parent: a graph, the module that was traced, or any other with the same inputs.
        after: the grown graph (or any module).
        inputs: inputs of the user's own to compare on as well: a tensor or a tuple. Where the parent fails on them, the
            verdict is undetermined.
        seed: of the random inputs.
        batch_sizes: compared in eval mode besides the example's own.
        modes: what is compared; "all" for everything. "eval" and "train" as above; further ones want a common ledger:
            "lattice": whole numbers for weights and inputs, where every node must agree bit for bit;
            "extremes": the outputs on zeros, 1e18, denormal numbers, masks of one kind, strided tensors and their like;
            "gradients": those of parameters and inputs, the child's pulled back by the lift's transpose;
            "alive": new tensors have a gradient within two steps, and copies part;
            "float16", "bfloat16": the ledger applied to the parent cast to that; "autocast": to bfloat16.
        sizes: shapes of inputs at which the outputs are compared besides: each that of the one tensor, or a tuple of
            those of all tensors in call order. None looks for one at which the parent runs, and which is not the
            example's in its axes of positions or sequences, and says so where it finds none; () leaves it at those.

    Raises:
        NotPreserved: if neither side says what its inputs are, a parameter is NaN or on the meta device, there is no
            such mode, or sizes are no shapes of the inputs.
    """
    wanted = _wanted(modes)
    spec = next((side.inputs for side in (after, before) if isinstance(side, Network)), None)
    if spec is None:
        if inputs is None:
            raise NotPreserved("gg.verify of two plain modules wants inputs: gg.verify(a, b, inputs=x)")
        spec = InputSpec.of(inputs)
    for side in (before, after):
        _refuse(side.module if isinstance(side, Network) else side)
    own = None if inputs is None else ((inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs))
    probes = Probes(spec, own, seed, batch_sizes)
    asked = None if sizes is None else asked_sizes(spec, sizes)
    found = Findings()
    with torch.random.fork_rng(devices=[]):
        if isinstance(after, Network) and not isinstance(before, Network):
            before = _as_parent(before, after) or before
        if isinstance(before, Network) and isinstance(after, Network):
            entries = after.ledger.after(before.ledger)
            if entries is not None and before.modes == after.modes:
                return _verify_grown(before, after, entries, wanted, probes, asked, found)
        compared = compare_unrelated(before, after, probes, found, asked or ())
        if set(wanted) - set(DEFAULT_MODES):
            found.doubts.append("the modes beyond eval and train want a common ledger")
        return conclude(found.checks, compared, found.doubts, found.notes, None)


def _wanted(modes: Sequence[str] | str) -> tuple[str, ...]:
    """The modes in the order in which they are compared."""
    known = (*DEFAULT_MODES, *FURTHER)
    asked = known if modes == "all" else (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [mode for mode in asked if mode not in known]
    if unknown or not asked:
        raise NotPreserved(f"there is no mode {unknown or asked}; gg.verify knows {', '.join(known)}, or 'all'")
    return tuple(mode for mode in known if mode in asked)


def _verify_grown(
    before: Network,
    after: Network,
    entries: tuple[Entry, ...],
    wanted: tuple[str, ...],
    probes: Probes,
    asked: tuple[InputSpec, ...] | None,
    found: Findings,
) -> Verdict:
    steps = after.steps[len(before.ledger) :]
    possible = [m for m in DEFAULT_MODES if m in before.modes and all(m in step.exact_in for step in steps)]
    modes = tuple(mode for mode in possible if mode in wanted) or tuple(possible[:1])
    other = [mode for mode in wanted if mode in DEFAULT_MODES and mode not in before.modes]
    if other:
        found.notes.append(f"the graph holds for {possible[0]} mode alone: in {other[0]} mode nothing was compared")
    if "train" in before.modes and "train" in wanted and "train" not in possible:
        alone = [entry.mutation for entry, step in zip(entries, steps, strict=True) if "train" not in step.exact_in]
        found.notes.append(f"declared exact in eval mode alone: {', '.join(alone)}")
    case = Case.of(before, after, entries, modes, probes)
    said = tuple(found.notes)
    case = dataclasses.replace(case, sizes=found_sizes(case, found) if asked is None else asked)
    check_kept(case, found)
    further = [mode for mode in wanted if mode in FURTHER]
    try:
        compare_grown(case, found)
        compare_own_dtype(case, found)
        for mode in further:
            FURTHER[mode](case, found)
    except NodeFails as failure:
        if obstacle := _obstacle(case):
            return conclude([], (), [f"the model cannot be run in float64: {obstacle}"], list(said), None)
        if failure.of_parent:  # in another mode than the one in which it was seen to run
            found.doubts.append(f"the parent itself cannot be run: {failure}")
            return conclude(found.checks, (), found.doubts, found.notes, found.part)
        found.checks.append(Check("eval", "the child runs", math.inf, 0.0, failure.node, False))
        found.notes.append(str(failure))
        found.part = found.part or failure.node
    return conclude(found.checks, (*modes, *further), found.doubts, found.notes, found.part)


def _obstacle(case: Case) -> str:
    """Why a model cannot be run in float64, in torch's words: its code names a narrower dtype, say."""
    probe = case.probes.drawn("eval", torch.float64)[0]
    try:
        with torch.no_grad():
            case.runner(case.parent.module, probe, "eval").finish()
    except NodeFails as failure:
        return str(failure)
    return ""


def _refuse(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise NotPreserved(f"`{name}` is on the meta device and holds no numbers to compare")
        # the sum first: it makes no copy
        suspect = parameter.is_floating_point() and bool(torch.isnan(parameter.detach().sum()))
        if suspect and bool(torch.isnan(parameter).any()):
            raise NotPreserved(f"`{name}` holds NaN, so that nothing can be compared")


def _as_parent(module: nn.Module, after: Network) -> Network | None:
    """The network of a plain module, if the ledger of `after` makes the same architecture of it; else None."""
    inputs = after.base_inputs or after.inputs
    args, kwargs = inputs.sample()
    try:
        with in_mode(module, module.training if len(after.modes) > 1 else "train" in after.modes):
            found = capture(module, args, kwargs)
        base = Network(found.module, inputs, way=found.way, modes=found.modes, notes=found.notes, answers=found.answers)
        grown = replay(base, after.ledger)
    except GraphGrowError:
        return None
    mine = [(name, t.shape, t.dtype) for name, t in grown.module.state_dict().items()]
    return base if mine == [(name, t.shape, t.dtype) for name, t in after.module.state_dict().items()] else None
