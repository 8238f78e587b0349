"""Carrying out a plan of growth: the new tensors, and where the old units are now."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch

from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import NodeFacts
from graphgrow.ir.flow import Fill, State, Weighted
from graphgrow.ir.inputs import InputSpec
from graphgrow.ir.positions import Kept, Units, axis_map, kept_positions
from graphgrow.ir.value import Value
from graphgrow.network.network import Network, Step
from graphgrow.planning.growth import Kind, Plan
from graphgrow.planning.statistics import old_share
from graphgrow.rewrite.contract import TensorChange
from graphgrow.rewrite.resize import resize
from graphgrow.rewrite.shares import Readers, Reading
from graphgrow.rewrite.tensors import TensorGrowth


def grow(
    network: Network, editor: Editor, plan: Plan, generator: torch.Generator, inputs: InputSpec | None = None
) -> tuple[Step, list[TensorChange]]:
    """Grow one space of a network by a plan.

    Args:
        network: the parent, whose axes the plan was made on.
        editor: over a copy of the parent's module.
        plan: an exact growth.
        generator: on the CPU, for fresh weights and shares.
        inputs: of the grown network, where they grow with the space.

    Returns:
        Where the old units are now, and how each replaced tensor came about.

    Raises:
        StructureError: if a shape differs from what its axes predict.
    """
    changes = _grow_tensors(network, editor, plan, generator)
    alike = resize(network, editor, plan.units.space, plan.units.new_size, inputs)
    rescaled = _rescale_statistics(network, editor, plan)
    if alike and not (plan.rescaled or rescaled) and plan.units.old_size > 1:  # an axis of one unit may be broadcast
        editor.resized = {plan.units.space: plan.units.new_size}
    return _step(network, plan, changes), changes


# -- tensors -------------------------------------------------------------------------------------------------


def _grow_tensors(network: Network, editor: Editor, plan: Plan, generator: torch.Generator) -> list[TensorChange]:
    fills: dict[Value, dict[int, State]] = {}
    for facts in network.analysis.touching(plan.units.space):
        for value in facts.values():
            for axis in value.axes_with(plan.units.space) if value.parameter else ():
                fills.setdefault(value, {})[axis] = plan.fills[(value, axis)]
    readers: dict[Value, set[int]] = {}
    for value, axis in plan.readers:
        readers.setdefault(value, set()).add(axis)
    growths = {
        value: TensorGrowth.of(value, plan.units, by_axis, readers.get(value, set()), plan.apart)
        for value, by_axis in fills.items()
    }
    scales = {fill.by for state in plan.fills.values() for fill in state if isinstance(fill, Weighted)}
    weights = {scale: editor.tensor(scale.name).detach() for scale in scales}
    for growth in growths.values():
        growth.weights = weights
    for norm in plan.rescaled:
        if norm.weight is not None:
            growth = growths[norm.weight]
            growth.scale, growth.offset = math.sqrt(old_share(norm, plan.units)), norm.offset
    rescaled = set(map(id, plan.rescaled))
    for facts in network.analysis.touching(plan.units.space):
        _rescale_eps(editor, facts, rescaled, plan.units)
    changes = []
    for value, growth in growths.items():
        old = editor.tensor(value.name)
        new = growth.grow(old, generator)
        editor.set_tensor(value.aliases, new)
        changes.append(TensorChange(value.aliases, old, editor.tensor(value.name), growth.carry))
    if plan.kind is Kind.REPLICATE:
        _tell_how_copies_are_read(plan, growths, changes)
    return changes


def _rescale_eps(editor: Editor, facts: NodeFacts, rescaled: set[int], units: Units) -> None:
    """Set eps to eps * n / (n + k), n of the units that are normalised, once for each place where it stands."""
    for norm in facts.normalisations:
        if id(norm) not in rescaled or norm.eps is None:
            continue
        editor.set(editor.node(facts.node.name), norm.eps, norm.eps_value * old_share(norm, units))


def _tell_how_copies_are_read(plan: Plan, growths: Mapping[Value, TensorGrowth], changes: list[TensorChange]) -> None:
    """Tell what writes copies how these are read, for its optimizer state: found when there is some to carry along."""

    @functools.cache
    def reading() -> Reading | None:
        readers = Readers(plan.units)
        for change, growth in zip(changes, growths.values(), strict=True):
            if len(growth.axes) == 1 and Fill.SHARE in growth.axes[0].fills and not change.old.is_meta:
                readers.add(change.old, change.new, growth.axes[0].axis, growth.axes[0].map)
        return readers.reading()

    for growth in growths.values():
        growth.reading = reading


def _rescale_statistics(network: Network, editor: Editor, plan: Plan) -> bool:
    """Multiply what is taken of all units of the axis by what makes up for the new ones; whether there was any."""
    factors = {value: factor for value, factor in plan.factors.items() if factor != 1.0}
    for facts in network.analysis.facts.values():
        for statistic in facts.statistics:
            if statistic.eps is not None and statistic.output in factors:
                eps = statistic.eps_value * factors[statistic.output]
                editor.set(editor.node(facts.node.name), statistic.eps, eps)
        if isinstance(facts.output, Value) and facts.output in factors:
            editor.multiply(editor.node(facts.node.name), factors[facts.output])
    return bool(factors)


# -- what happened -------------------------------------------------------------------------------------------


def _step(network: Network, plan: Plan, changes: list[TensorChange]) -> Step:
    nodes: dict[str, dict[int, Kept]] = {}
    shared: set[str] = set()
    for facts in network.analysis.touching(plan.units.space):
        if not isinstance(facts.output, Value):
            continue
        for axis in facts.output.axes_with(plan.units.space):
            kept = kept_positions(facts.output.axes[axis], plan.units)
            nodes.setdefault(facts.node.name, {})[axis] = kept
            if Fill.SHARE in plan.fills.get((facts.output, axis), ()):
                shared.add(facts.node.name)
    tensors: dict[str, dict[int, torch.Tensor]] = {}
    for change in changes:
        value = network.analysis.parameters[change.names[0]]
        maps = {axis: axis_map(value.axes[axis], plan.units).kept for axis in value.axes_with(plan.units.space)}
        tensors.update(dict.fromkeys(change.names, maps))
    rounded = bool(plan.rescaled) or any(Fill.MEAN in state for state in plan.fills.values())
    touched = tuple(name for change in changes for name in change.names)
    return Step(nodes, frozenset(shared), tensors, plan.exact_in, touched, rounded)
