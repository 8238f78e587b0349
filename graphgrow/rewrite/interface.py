"""Growing what a model shares with its callers: outputs, inputs, and tables that are looked up by position.

Their axes are frozen for every other pass. Here an analysis leaves them free, and the step says where the old part of
the interface is, which is what stays the same.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.errors import Declined, MutationError
from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import flatten_values
from graphgrow.ir.inputs import InputSpec, TensorSpec
from graphgrow.ir.positions import Kept, Recurring, Units, kept_positions
from graphgrow.ir.terms import Space, leaves
from graphgrow.ir.value import Value
from graphgrow.network.network import Network, Step
from graphgrow.ops.analysis import Opening
from graphgrow.planning.growth import Kind
from graphgrow.planning.plan import plan_growth
from graphgrow.rewrite.contract import TensorChange
from graphgrow.rewrite.grow import grow


def opened(network: Network, opening: Opening) -> Network:
    """The same network, analysed with some axes of its interface free."""
    return dataclasses.replace(network, opening=opening)


def append_to_interface(
    free: Network, editor: Editor, space: Space, extra: int, generator: torch.Generator, inputs: InputSpec | None = None
) -> tuple[Step, list[TensorChange]]:
    """Append units to a space that reaches the interface.

    Args:
        free: the parent, opened.
        editor: over a copy of its module.
        space: of the opened analysis.
        extra: how many units.
        generator: of fresh weights.
        inputs: of the grown network, where they change.

    Raises:
        Declined: if it would not be exact for the old part of the interface.
        MutationError: if `extra` is no positive number.
    """
    if extra <= 0:
        raise MutationError(f"extra={extra}: at least 1 must be added")
    units = appended(space, extra)
    step, changes = grow(free, editor, plan_growth(free.analysis, units, Kind.APPEND), generator, inputs)
    outputs = {str(number): places for number, places in _output_places(free, units)}
    return dataclasses.replace(step, outputs=outputs, spec=inputs), changes


def appended(space: Space, extra: int) -> Units:
    """The units of a space with some more behind them."""
    return Units(space, torch.cat([torch.arange(space.size), torch.zeros(extra, dtype=torch.int64)]))


def refuse_moving_places(free: Network, space: Space) -> None:
    """Decline where an output joins a space with what varies: its old part would lie elsewhere in each call.

    What repeats itself (the boxes at each place of a map) may be repeated as often as it likes.

    Raises:
        Declined: with the size of that axis.
    """
    inputs = [facts for facts in free.analysis.facts.values() if facts.node.op == "placeholder"]
    given = [value for facts in inputs for value in flatten_values(facts.output) if value.axes]
    batch = {leaf for value in given for leaf in leaves(value.axes[0])}
    (output,) = (node for node in free.module.graph.nodes if node.op == "output")
    for value in free.analysis.facts[output].operands:
        for axis in value.axes_with(space):
            if batch & set(leaves(value.axes[axis])):
                raise Declined(f"axis {axis} of `{value.name}` joins it with the batch, and its places vary with that")
            term = value.axes[axis]
            moving = [leaf for leaf in leaves(term) if leaf.frozen and leaf.size > 1]  # what is pooled to 1 stays
            varies = not free.analysis.settled.issuperset(moving)
            if varies and not isinstance(kept_positions(term, appended(space, 1)), Recurring):
                raise Declined(f"axis {axis} of `{value.name}` joins it with positions, and its places vary with these")


def input_spec(network: Network, placeholder: fx.Node, axis: int, size: int) -> tuple[InputSpec, int]:
    """The inputs with another size on one axis of one, a tensor, and the number of its leaf in the call."""
    spec = network.inputs
    placeholders = [node for node in network.module.graph.nodes if node.op == "placeholder"]
    position = placeholders.index(next(node for node in placeholders if node.name == placeholder.name))
    args, kwargs = list(spec.args), dict(spec.kwargs)
    holder: Any = args if position < len(args) else kwargs
    key: Any = position if position < len(args) else str(placeholder.target)
    old: TensorSpec = holder[key]
    marked = dataclasses.replace(old, shape=(*old.shape[:axis], size, *old.shape[axis + 1 :]))
    holder[key] = marked
    flat = pytree.tree_leaves((tuple(args), kwargs))
    number = next(i for i, leaf in enumerate(flat) if leaf is marked)
    return dataclasses.replace(spec, args=tuple(args), kwargs=kwargs), number


def _output_places(free: Network, units: Units) -> Iterator[tuple[int, dict[int, Kept]]]:
    """By number of the leaf among all outputs, where the old positions of an axis that grows are."""
    (output,) = (node for node in free.module.graph.nodes if node.op == "output")
    for number, value in enumerate(_returned(free, output.args[0])):
        if isinstance(value, Value) and value.axes_with(units.space):
            yield (
                number,
                {axis: kept_positions(value.axes[axis], units) for axis in value.axes_with(units.space)},
            )


def _returned(free: Network, item: Any) -> Iterator[Any]:
    """The leaves of what is returned, in the order of pytree; tensors as values."""
    for leaf in returned_leaves(item):
        known = free.analysis.facts[leaf].output if isinstance(leaf, fx.Node) else leaf
        yield from pytree.tree_leaves(known, is_leaf=lambda part: isinstance(part, Value))


def returned_leaves(item: Any) -> Iterator[Any]:
    """What stands in the argument of a graph's output, in the order of pytree; objects that it builds are opened."""
    for leaf in pytree.tree_leaves(item):
        if not isinstance(leaf, fx.Node) or not isinstance(leaf.target, type):
            yield leaf
        elif leaf.target is OrderedDict:
            yield from returned_leaves([value for _, value in leaf.args[0]])  # type: ignore[union-attr, misc]
        else:  # without what is None
            given = [*leaf.args, *leaf.kwargs.values()]
            yield from returned_leaves([part for part in given if part is not None])
