"""Carrying out a plan: tensors, sizes that are restated, and the check of every shape that follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphgrow.errors import Declined, StructureError
from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import Derived, Extent, NodeFacts, SizeSlot, flatten_values
from graphgrow.ir.flow import Fill, State
from graphgrow.ir.meta import values_of
from graphgrow.ir.positions import axis_map, grown_size
from graphgrow.ir.terms import Axes, Space, leaves
from graphgrow.ir.value import Value
from graphgrow.rewrite.contract import TensorChange
from graphgrow.rewrite.network import Network, Step
from graphgrow.rewrite.plan import Kind, Plan
from graphgrow.rewrite.shapes import Shapes
from graphgrow.rewrite.tensors import TensorGrowth, least_squares_shares


def grow(network: Network, editor: Editor, plan: Plan, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
    """Grow one space of a network by a plan.

    Args:
        network: the parent, whose axes the plan was made on.
        editor: over a copy of the parent's module.
        plan: an exact growth.
        generator: on the CPU, for fresh weights and shares.

    Returns:
        Where the old units are now, and how each replaced tensor came about.

    Raises:
        Declined: if a size that the graph computes cannot follow.
        StructureError: if a shape differs from what its axes predict.
    """
    changes = _grow_tensors(network, editor, plan, generator)
    sizes = {plan.units.space: plan.units.new_size}
    for facts in network.analysis.restating(plan.units.space):
        _restate_attributes(editor, facts, sizes)
    _drop_assertions(network, editor, plan.units.space)
    _follow(network, editor, plan.units.space, sizes)
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
        value: TensorGrowth.of(value, plan.units, by_axis, readers.get(value, set()))
        for value, by_axis in fills.items()
    }
    ratio = plan.units.old_size / plan.units.new_size
    scaled = {norm.weight: norm.offset for norm in plan.rescaled if norm.weight is not None}
    for weight, offset in scaled.items():
        growths[weight].scale, growths[weight].offset = math.sqrt(ratio), offset
    rescaled = set(map(id, plan.rescaled))
    for facts in network.analysis.touching(plan.units.space):
        _rescale_eps(editor, facts, rescaled, ratio)
    changes = []
    for value, growth in growths.items():
        old = editor.tensor(value.name)
        new = growth.grow(old, generator)
        editor.set_tensor(value.aliases, new)
        changes.append(TensorChange(value.aliases, old, editor.tensor(value.name), growth.carry))
    if plan.kind is Kind.REPLICATE:
        _spread_shares(plan, growths, changes)
    return changes


def _rescale_eps(editor: Editor, facts: NodeFacts, rescaled: set[int], ratio: float) -> None:
    """Set eps to eps * n / (n + k), once for each place where it stands."""
    for norm in facts.normalisations:
        if id(norm) not in rescaled or norm.eps is None:
            continue
        editor.set(editor.node(facts.node.name), norm.eps, norm.eps_value * ratio)


def _spread_shares(plan: Plan, growths: Mapping[Value, TensorGrowth], changes: list[TensorChange]) -> None:
    """Tell the written copies with which share they are read, for their optimizer state."""
    numerator = torch.zeros(plan.units.new_size, dtype=torch.float64)
    denominator = torch.zeros(plan.units.new_size, dtype=torch.float64)
    for change, growth in zip(changes, growths.values(), strict=True):
        if len(growth.axes) == 1 and Fill.SHARE in growth.axes[0].fills and not change.old.is_meta:
            a, b = least_squares_shares(change.old, change.new, growth.axes[0], plan.units)
            numerator, denominator = numerator + a, denominator + b
    if not bool((denominator > 0).any()):
        return
    shares = torch.where(denominator > 0, numerator / denominator.clamp(min=1e-300), torch.ones(()))
    for growth in growths.values():
        growth.unit_shares = shares


# -- sizes ---------------------------------------------------------------------------------------------------


def _restate_attributes(editor: Editor, facts: NodeFacts, sizes: Mapping[Space, int]) -> None:
    restated = [size for size in facts.sizes if size.slot.on_module and _changes(size.terms, sizes)]
    pinned = [pin for pin in facts.pins if _changes(pin.terms, sizes)]
    if not restated and not pinned:
        return
    node = editor.node(facts.node.name)
    for size in restated:
        editor.set(node, size.slot, _predicted(size, sizes))
    for pin in pinned:
        if any(leaf.frozen for term in pin.terms for leaf in leaves(term)):
            raise Declined(f"a number at `{node.name}` is computed from this size and from one of the inputs'")
        editor.set(node, pin.slot, pin.value)


def _changes(terms: Axes, sizes: Mapping[Space, int]) -> bool:
    return any(leaf in sizes for term in terms for leaf in leaves(term))


def _predicted(size: SizeSlot, sizes: Mapping[Space, int]) -> Any:
    numbers = tuple(grown_size(term, sizes) for term in size.terms)
    return numbers if size.as_tuple else numbers[0]


def _drop_assertions(network: Network, editor: Editor, space: Space) -> None:
    """Assertions on a size that grew: they were true at capture, and the shapes are checked anew below."""
    for facts in network.analysis.facts.values():
        if facts.node.target is not torch._assert:
            continue
        condition = facts.node.args[0]
        known = network.analysis.facts[condition].output if isinstance(condition, fx.Node) else None
        if isinstance(known, (Derived, Extent)) and _changes(known.terms, {space: 0}):
            editor.module.graph.erase_node(editor.node(facts.node.name))


def _follow(network: Network, editor: Editor, space: Space, sizes: Mapping[Space, int]) -> None:
    """Walk the graph once: put literals right, run each node that the growth reaches, compare with its axes."""
    analysis = network.analysis
    over = {facts.node.name for facts in (*analysis.touching(space), *analysis.restating(space))}
    facts_by_name = {facts.node.name: facts for facts in analysis.facts.values()}
    shapes = Shapes(network, editor)
    for node in list(editor.module.graph.nodes):
        if node.name not in over and not shapes.reached(node):
            continue
        facts = facts_by_name.get(node.name)
        if facts is not None and node.op.startswith("call"):
            _restate_literals(editor, node, facts, sizes)
            _resplit(node, facts, sizes)
        shapes.update(node)
        if facts is not None and node.op != "output":
            _compare(node, facts, sizes)


def _restate_literals(editor: Editor, node: fx.Node, facts: NodeFacts, sizes: Mapping[Space, int]) -> None:
    for size in facts.sizes:
        if size.slot.on_module:
            continue
        wanted, present = _predicted(size, sizes), editor.get(node, size.slot)
        if isinstance(present, fx.Node):  # it may have been read off another axis of equal size, which has grown
            _restate_computed(editor, node, size, present, wanted)
        elif size.as_tuple and any(isinstance(item, fx.Node) for item in present):
            if tuple(values_of(present)) != wanted:
                editor.set(node, size.slot, wanted)
        elif not _changes(size.terms, sizes):
            continue
        elif size.as_tuple or present != -1:
            editor.set(node, size.slot, wanted)


def _restate_computed(editor: Editor, node: fx.Node, size: SizeSlot, present: fx.Node, wanted: Any) -> None:
    """A size that the graph computes: it stays where it follows by itself, else it becomes a literal."""
    value = present.meta["value"]
    if isinstance(value, int):
        if value != wanted:
            editor.set(node, size.slot, wanted)
        return
    index = size.slot.path[-1]
    if value[index] != wanted:
        raise Declined(f"the sizes of `{node.name}` are computed as a whole by `{present.name}` and cannot follow")


def _resplit(node: fx.Node, facts: NodeFacts, sizes: Mapping[Space, int]) -> None:
    """Chunk and split restate sizes in forms of their own: give the parts one by one."""
    if not facts.split_parts or not _changes(facts.split_parts, sizes):
        return
    parts = [grown_size(part, sizes) for part in facts.split_parts]
    source = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("tensor"))
    node.op, node.target = "call_function", torch.split
    node.args, node.kwargs = (source, parts, facts.split_axis), {}


def _compare(node: fx.Node, facts: NodeFacts, sizes: Mapping[Space, int]) -> None:
    predicted = [tuple(grown_size(term, sizes) for term in value.axes) for value in flatten_values(facts.output)]
    found = [tuple(t.shape) for t in _tensors(node.meta["value"])]
    if predicted and predicted != found:
        raise StructureError(f"`{node.name}` has shapes {found} where its axes predict {predicted}")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in _tensors(item)]
    if isinstance(value, dict):
        return [t for item in value.values() for t in _tensors(item)]
    return []


# -- what happened -------------------------------------------------------------------------------------------


def _step(network: Network, plan: Plan, changes: list[TensorChange]) -> Step:
    nodes: dict[str, dict[int, torch.Tensor]] = {}
    shared: set[str] = set()
    for facts in network.analysis.touching(plan.units.space):
        if not isinstance(facts.output, Value):
            continue
        for axis in facts.output.axes_with(plan.units.space):
            kept = axis_map(facts.output.axes[axis], plan.units).kept
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
