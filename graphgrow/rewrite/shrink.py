"""Taking units of one space away: the dual of growing, by the same axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from graphgrow.errors import Declined
from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import NodeFacts, NormKind, StatisticKind
from graphgrow.ir.flow import Fill
from graphgrow.ir.positions import Removal, Shrinkage, Units, kept_heirs, present_size, shrinkage
from graphgrow.ir.terms import Space
from graphgrow.ir.value import Value
from graphgrow.network.network import Network, Step
from graphgrow.planning.evaluate import holds
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.plan import plan_growth
from graphgrow.planning.statistics import growing_axis, judge, old_share
from graphgrow.rewrite.contract import TensorChange
from graphgrow.rewrite.lines import line_means, lines_along
from graphgrow.rewrite.present import Numbers
from graphgrow.rewrite.resize import resize
from graphgrow.rewrite.roles import Role
from graphgrow.rewrite.runs import assign
from graphgrow.rewrite.tensors import laid_out_like


@dataclass(frozen=True)
class TensorShrinkage:
    """How one parameter or buffer shrinks.

    Attributes:
        axes: what becomes of the positions of each axis that shrinks.
        summed: for each of them, the old positions that are added to the first of their heir; of the others the first
            alone stays.
        scale: a factor on the whole (the weight of a norm over the axis).
        offset: what is added to the tensor where it is used, and so scaled with it (a norm that scales by 1 + w).
    """

    axes: Mapping[int, Shrinkage]
    summed: Mapping[int, torch.Tensor]
    scale: float = 1.0
    offset: float = 0.0

    def shrink(self, old: torch.Tensor) -> torch.Tensor:
        """The tensor that is left."""
        new = old.detach()
        for axis, shrunk in self.axes.items():
            before, new = new, new.index_select(axis, shrunk.first.to(new.device))
            for positions in _last_copies_first(shrunk, self.summed[axis]):
                heirs = shrunk.heirs[positions].to(new.device)
                new = new.index_add(axis, heirs, before.index_select(axis, positions.to(new.device)))
        if self.scale != 1.0:
            new = (self.offset + new) * self.scale - self.offset if self.offset else new * self.scale
        return laid_out_like(new.clone() if new is old else new, old)

    def carry(self, state: torch.Tensor, role: Role) -> torch.Tensor:
        """Optimizer state: the inverse of `TensorGrowth.carry`.

        The gradient of a merged row is the sum over its copies: what goes with the gradient's k-th power is the k-th
        power of a sum of k-th roots. That of a weight which was shared out is the gradient of either share.
        """
        new, order = state.detach(), role.order
        for axis, shrunk in self.axes.items():
            before, new = new, new.index_select(axis, shrunk.first.to(new.device))
            copies = shrunk.heirs >= 0
            copies[shrunk.first] = False
            copies[self.summed[axis]] = False
            where = torch.nonzero(copies).flatten()
            if len(where) and order:
                heirs, theirs = shrunk.heirs[where].to(new.device), before.index_select(axis, where.to(new.device))
                if order == 1:
                    new = new.index_add(axis, heirs, theirs)
                else:
                    new = new.sqrt().index_add(axis, heirs, theirs.sqrt()).square()
        return new / self.scale**order if self.scale != 1.0 else new


def plan_drop(network: Network, removal: Removal) -> Plan:
    """Show by the numbers that units can be dropped: growth would have made them so.

    Raises:
        Declined: if it cannot be shown, with the node and the reason.
    """
    units = Units(removal.space, torch.arange(removal.space.size))
    plan = plan_growth(network.analysis, units, Kind.APPEND, Numbers(network, removal))
    _refuse_rescaling(network, plan, Units.appended(removal.space, 1))
    return plan


def _refuse_rescaling(network: Network, plan: Plan, grown: Units) -> None:
    """Decline where growth multiplied a number that is taken of all units: nothing says what is to be undone."""
    append = plan.kind is Kind.APPEND
    for facts in network.analysis.touching(grown.space):
        over = [s for s in facts.statistics if growing_axis(s, grown.space) is not None]
        taken = [s.kind.value for s in over if judge(s, grown, append, plan.fills).factor != 1.0]
        bare = [n.kind.value for n in facts.normalisations if n.weight is None and holds(n.term, grown.space)]
        if taken or (append and bare):
            where = facts.module_path or facts.node.name
            raise Declined(f"the {(*taken, *bare)[0]} over the units was rescaled as a whole (at `{where}`)")


def drop(network: Network, editor: Editor, removal: Removal) -> tuple[Step, list[TensorChange]]:
    """Drop units, whatever they hold: `plan_drop` says whether that is exact.

    Norms over the axis get their scale and eps back: weight * sqrt(n / (n - k)), eps * n / (n - k).
    """
    space = removal.space
    touching = network.analysis.touching(space)
    norms = []
    for facts in touching:
        for norm in facts.normalisations:
            if holds(norm.term, space):
                norms.append(norm)
                if norm.eps is not None:
                    editor.set(editor.node(facts.node.name), norm.eps, norm.eps_value * old_share(norm, removal))
    scales = {
        norm.weight: (math.sqrt(old_share(norm, removal)), norm.offset) for norm in norms if norm.weight is not None
    }
    noisy = any(noise.value.axes_with(space) for facts in touching for noise in facts.noises)
    taken = [s.kind for facts in touching for s in facts.statistics if growing_axis(s, space) is not None]
    means = any(norm.kind is not NormKind.RMS for norm in norms) or any(
        kind is not StatisticKind.NORM for kind in taken
    )
    step, changes = _shrink(network, editor, removal, None, scales)
    modes = {"eval"} if noisy and means else {"eval", "train"}
    return replace(step, exact_in=frozenset(modes), rounded=bool(norms)), changes


def set_means(wide: nn.Module, removal: Removal, plan: Plan) -> bool:
    """Set what the plan drops at the mean to the mean itself, in the parameters of a module in float64.

    Args:
        wide: changed in place; a parameter of another shape than the network's is left as it is.
        removal: of the units.
        plan: of `plan_drop`.

    Returns:
        Whether there was any.
    """
    changed = False
    named = dict(wide.named_parameters())
    for (value, axis), state in plan.fills.items():
        tensor = named.get(value.name)
        if not value.parameter or tensor is None or tuple(tensor.shape) != tuple(map(present_size, value.axes)):
            continue
        shrunk = shrinkage(value.axes[axis], removal)
        for occurrence, fill in enumerate(state):
            if fill is Fill.MEAN:
                gone = torch.nonzero((shrunk.heirs < 0) & (shrunk.occurrence == occurrence)).flatten()
                lines = lines_along(value.axes[axis], removal.space)
                means = line_means(tensor.detach(), axis, lines, shrunk.heirs >= 0, gone)
                with torch.no_grad():
                    assign(tensor, axis, gone, means)
                changed = True
    return changed


def plan_merge(network: Network, removal: Removal) -> Plan:
    """The growth that made copies of units, which merging them undoes; it depends on the structure alone.

    Raises:
        Declined: if no such growth is exact.
    """
    space, counts = removal.space, torch.bincount(removal.heirs)
    everyone = torch.arange(space.size)
    alike = bool((counts == counts[0]).all())
    source = everyone.repeat(int(counts[0])) if alike else torch.cat([everyone, torch.zeros(1, dtype=torch.int64)])
    plan = plan_growth(network.analysis, Units(space, source), Kind.REPLICATE)
    _refuse_rescaling(network, plan, plan.units)
    return plan


def refuse_unlike_copies(network: Network, removal: Removal, plan: Plan) -> None:
    """Decline unless units that are merged are copies of each other, to the bit.

    Raises:
        Declined: with the parameter in which they differ.
    """
    numbers = Numbers(network, removal)
    for (value, axis), state in plan.fills.items():
        for occurrence, fill in enumerate(state if value.parameter else ()):
            if fill is Fill.COPY and not numbers.equal(value, axis, occurrence):
                raise Declined(f"they differ in `{value.name}`, and only copies to the bit can be merged exactly")


def merge(network: Network, editor: Editor, removal: Removal, plan: Plan) -> tuple[Step, list[TensorChange]]:
    """Merge units: of what is written the first one stays, reading weights are added up."""
    step, changes = _shrink(network, editor, removal, plan, {})
    shared = {
        facts.node.name
        for facts in network.analysis.touching(removal.space)
        if isinstance(facts.output, Value)
        for axis in facts.output.axes_with(removal.space)
        if Fill.SHARE in plan.fills.get((facts.output, axis), ())
    }
    return replace(step, shared=frozenset(shared), exact_in=plan.exact_in, rounded=True), changes


def _shrink(
    network: Network, editor: Editor, removal: Removal, plan: Plan | None, scales: Mapping[Value, tuple[float, float]]
) -> tuple[Step, list[TensorChange]]:
    space = removal.space
    values = dict.fromkeys(v for facts in network.analysis.touching(space) for v in facts.values())
    tensors: dict[str, dict[int, torch.Tensor]] = {}
    changes = []
    for value in (v for v in values if v.parameter):
        axes = {axis: shrinkage(value.axes[axis], removal) for axis in value.axes_with(space)}
        summed = {axis: _summed(shrunk, value, axis, plan) for axis, shrunk in axes.items()}
        change = TensorShrinkage(axes, summed, *scales.get(value, (1.0, 0.0)))
        old = editor.tensor(value.name)
        editor.set_tensor(value.aliases, change.shrink(old))
        changes.append(TensorChange(value.aliases, old, editor.tensor(value.name), change.carry))
        heirs = {axis: shrunk.heirs for axis, shrunk in axes.items()}
        tensors.update((name, heirs) for name in value.aliases)
    alike = resize(network, editor, space, removal.new_size)
    known = not any(_told_otherwise(facts, space) for facts in network.analysis.touching(space))
    if alike and known and removal.new_size > 1:  # an axis of one unit may be broadcast
        editor.resized = {space: removal.new_size}
    nodes = {
        facts.node.name: {axis: kept_heirs(facts.output.axes[axis], removal) for axis in facts.output.axes_with(space)}
        for facts in network.analysis.touching(space)
        if isinstance(facts.output, Value) and facts.output.axes_with(space)
    }
    return Step(nodes, tensors=tensors, touched=tuple(tensors)), changes


def _told_otherwise(facts: NodeFacts, space: Space) -> bool:
    """Whether a rule may say more than a size of a node that is left: norms are rescaled, some numbers were read."""
    rescaled = any(holds(norm.term, space) for norm in facts.normalisations)
    return rescaled or bool(facts.storings) or any(value.infinite for value in facts.values())


def _summed(shrunk: Shrinkage, value: Value, axis: int, plan: Plan | None) -> torch.Tensor:
    """The positions of copies whose entries are shares."""
    state = () if plan is None else plan.fills[value, axis]
    shares = torch.tensor([i for i, fill in enumerate(state) if fill is Fill.SHARE], dtype=torch.int64)
    copies = torch.isin(shrunk.occurrence, shares)
    copies[shrunk.first] = False
    return torch.nonzero(copies).flatten()


def _last_copies_first(shrunk: Shrinkage, positions: torch.Tensor) -> list[torch.Tensor]:
    """Positions in rounds of one for each heir, the last copies first: a split took each share off what was left."""
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for position in reversed(positions.tolist()):
        heir = int(shrunk.heirs[position])
        number = seen[heir] = seen.get(heir, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(position)
    return [torch.tensor(numbers) for numbers in rounds]
