"""A parent, its child, and the entries of the ledger between them: what every mode of comparison looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import fx, nn

from graphgrow.ir.inputs import InputSpec
from graphgrow.network.ledger import Entry
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.apply import replay
from graphgrow.rewrite.draws import begin_random
from graphgrow.rewrite.text import parse_mutation
from graphgrow.verification.copies import own_network, wide_network
from graphgrow.verification.numbers import Numbers, one_ulp
from graphgrow.verification.places import Counterparts, Places, cut, interface_places
from graphgrow.verification.probes import Inputs, Probes
from graphgrow.verification.runner import Runner
from graphgrow.verification.verdict import Check

SLACK = 32.0  # admitted multiple of the measured re-association noise
UNIT = 16 * torch.finfo(torch.float64).eps  # admitted besides, relative to the largest output
OF_NOISE = f"{SLACK:g} times the noise of one ulp"


@dataclass
class Findings:
    """What came out so far.

    Attributes:
        checks: comparisons.
        doubts: why a yes would say too little.
        notes: what a reader should know.
        part: the first node at which the graphs part.
    """

    checks: list[Check] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    part: str | None = None


@dataclass(frozen=True)
class Case:
    """Two networks of one ledger over the users' own tensors.

    Attributes:
        parent: before; in float64, with the numbers that it holds rounded, where a rewrite is exact for those.
        child: after; where growth rounds to the parameters' dtype, what the ledger makes of the parent in float64.
        before: the parent as it was given.
        after: the child as it was given.
        entries: of the ledger, between the two.
        steps: what they did to the places of old units.
        modes: those of "eval" and "train" that are to be compared and that every step claims.
        probes: the inputs.
        rounded: whether a step rounds to the parameters' dtype.
        wide: conversions to float64.
        failing: numbers of the probes in eval mode on which the parent itself fails: batch sizes that it cannot take.
        exact: by graph and number of a probe in eval mode, what it computes from that in float64.
        sizes: inputs of other sizes than the example's, at which outputs are compared as well.
    """

    parent: Network
    child: Network
    before: Network
    after: Network
    entries: tuple[Entry, ...]
    steps: tuple[Step, ...]
    modes: tuple[str, ...]
    probes: Probes
    rounded: bool
    wide: Numbers
    failing: set[int] = field(default_factory=set)
    exact: dict[tuple[fx.GraphModule, int], Any] = field(default_factory=dict)
    sizes: tuple[InputSpec, ...] = ()

    def drawn(self, dtype: torch.dtype | None) -> dict[int, Inputs]:
        """The probes in eval mode by their numbers, those aside on which the parent itself fails."""
        probes = enumerate(self.probes.drawn("eval", dtype))
        return {number: probe for number, probe in probes if number not in self.failing}

    @classmethod
    def of(
        cls, before: Network, after: Network, entries: tuple[Entry, ...], modes: tuple[str, ...], probes: Probes
    ) -> Case:
        """The case of a parent and a network grown from it by these entries."""
        steps = after.steps[len(before.ledger) :]
        rounded = any(step.rounded for step in steps)
        given, own = own_network(before), own_network(after)
        parent = given
        if rounded:
            wide = wide_network(before)
            parent = _refined(parent, wide, entries)
            child = replay(wide, entries)
        else:
            child = own
        return cls(parent, child, given, own, entries, steps, modes, probes, rounded, Numbers(torch.float64))

    @cached_property
    def counterparts(self) -> Counterparts:
        """How the nodes of both belong together."""
        return Counterparts.of(self.steps)

    @cached_property
    def resting(self) -> bool:
        """Whether a mutation is exact for the present numbers alone: one that takes something away."""
        return any(parse_mutation(entry.mutation).rests_on_numbers for entry in self.entries)

    @property
    def touched(self) -> set[str]:
        """Names of the parameters and buffers that growth made or replaced."""
        old = {name for name, _ in self.parent.module.named_parameters()}
        new = {name for name, _ in self.child.module.named_parameters()} - old
        return new | {name for step in self.steps for name in step.touched}

    def runner(self, module: fx.GraphModule, probe: Inputs, mode: str, numbers: Numbers | None = None) -> Runner:
        """Runs a graph of the case on a probe, from the same random state each time."""
        module.train(mode == "train")
        begin_random(self.probes.seed)
        of_parent = module is self.parent.module or module is self.before.module
        seen = partial(self.outputs_of, module)
        places = {} if of_parent else self.counterparts.places
        return Runner(module, self.inputs_of(module, probe), numbers or self.wide, of_parent, seen, places)

    def inputs_of(self, module: nn.Module, probe: Inputs) -> Inputs:
        """What a side of the case is called with: the parent with the old units alone, where the inputs have grown."""
        if not self._is_parent(module):
            return probe
        args, kwargs = cut(probe, self.interface[0])
        return args, kwargs

    def outputs_of(self, module: nn.Module, outputs: Any) -> Any:
        """What is compared of a side's outputs: the old units."""
        return outputs if self._is_parent(module) else cut(outputs, self.interface[1])

    @cached_property
    def interface(self) -> tuple[Places, Places]:
        """Where the old units of inputs and outputs are, by number of the leaf."""
        return interface_places(self.steps)

    def _is_parent(self, module: nn.Module) -> bool:
        return module is self.parent.module or module is self.before.module

    def noisy(self, module: fx.GraphModule, probe: Inputs, mode: str, draw: int = 0) -> Runner:
        """The same with every parameter and buffer moved by one ulp, up or down as this draw has it."""
        return self.runner(module, probe, mode, Numbers(torch.float64, one_ulp(self.probes.seed + draw)))


def _refined(parent: Network, wide: Network, entries: tuple[Entry, ...]) -> Network:
    """Give the parent in float64 the numbers that it holds rounded, where a mutation is exact for those.

    Returns:
        What may stand for the parent: itself, or `wide` where that has other numbers now.
    """
    changed, current, done = False, parent, 0
    mutations = [parse_mutation(entry.mutation) for entry in entries]
    for number in (number for number, mutation in enumerate(mutations) if mutation.refines):
        current, done = replay(current, entries[done:number]), number
        changed = mutations[number].refine(current, wide.module) or changed
    return wide if changed else parent


class Noise:
    """What one ulp in every parameter does to the outputs and buffers of a graph; found when first asked for."""

    def __init__(self, case: Case, module: fx.GraphModule, probe: Inputs, mode: str) -> None:
        self._case, self._module, self._probe, self._mode = case, module, probe, mode

    @cached_property
    def _ran(self) -> tuple[Any, dict[str, torch.Tensor]]:
        runner = self._case.noisy(self._module, self._probe, self._mode)
        return runner.finish(), runner.buffers()

    def outputs(self) -> Any:
        """The moved outputs."""
        return self._ran[0]

    def buffers(self) -> dict[str, torch.Tensor]:
        """The moved buffers."""
        return self._ran[1]
