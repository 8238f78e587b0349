"""Putting right every size that a graph restates when an axis gets another size, and checking every shape."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphgrow.errors import StructureError
from graphgrow.ir.editor import Editor
from graphgrow.ir.facts import Derived, Extent, NodeFacts, SizeSlot, Slot, flatten_values, varies
from graphgrow.ir.inputs import InputSpec
from graphgrow.ir.meta import stand_beside, values_of
from graphgrow.ir.positions import grown_size
from graphgrow.ir.terms import Axes, Space, leaves
from graphgrow.layers import require_decision
from graphgrow.network.network import Network
from graphgrow.rewrite.proportion import divides_anew, in_proportion
from graphgrow.rewrite.shapes import Shapes

CHUNK = "graphgrow_chunk"  # the key under which a node keeps the chunk that it was while its parts were equal


def resize(network: Network, editor: Editor, space: Space, size: int, inputs: InputSpec | None = None) -> bool:
    """Give a space of a network another size, in an editor's copy whose tensors have it already.

    Args:
        network: the parent, whose axes are known.
        editor: over a copy of the parent's module.
        space: that changes.
        size: its new one.
        inputs: of the copy, where they change with the space.

    Returns:
        Whether every operator is what it was, but for sizes.

    Raises:
        StructureError: if a shape differs from what its axes predict.
    """
    sizes = {space: size}
    for facts in network.analysis.restating(space):
        _restate_attributes(editor, facts, sizes)
    dropped = _drop_assertions(network, editor, space)
    resplit = _follow(network, editor, space, sizes, inputs)
    return not (dropped or resplit)


def _restate_attributes(editor: Editor, facts: NodeFacts, sizes: Mapping[Space, int]) -> None:
    restated = [size for size in facts.sizes if size.slot.on_module and _changes(size.terms, sizes)]
    pinned = [pin for pin in facts.pins if _changes(pin.terms, sizes)]
    if not restated and not pinned:
        return
    node = editor.node(facts.node.name)
    for size in restated:
        editor.set(node, size.slot, _predicted(size, sizes))
    for pin in pinned:
        editor.set(node, pin.slot, pin.value)


def _changes(terms: Axes, sizes: Mapping[Space, int]) -> bool:
    return any(leaf in sizes for term in terms for leaf in leaves(term))


def _predicted(size: SizeSlot, sizes: Mapping[Space, int]) -> Any:
    numbers = tuple(grown_size(term, sizes) for term in size.terms)
    return numbers if size.as_tuple else numbers[0]


def _drop_assertions(network: Network, editor: Editor, space: Space) -> bool:
    """Checks of a size that changes: they held at capture, and the shapes are checked anew below."""
    dropped = False
    for facts in network.analysis.facts.values():
        if facts.node.target not in (torch._assert, require_decision):
            continue
        condition = facts.node.args[0]
        known = network.analysis.facts[condition].output if isinstance(condition, fx.Node) else None
        if isinstance(known, (Derived, Extent)) and _changes(known.terms, {space: 0}):
            editor.module.graph.erase_node(editor.node(facts.node.name))
            dropped = True
    return dropped


def _follow(
    network: Network, editor: Editor, space: Space, sizes: Mapping[Space, int], inputs: InputSpec | None
) -> bool:
    """Walk the graph once: put literals right, run each node that the change reaches, compare with its axes.

    Returns:
        Whether an operator was written in another form.
    """
    resplit = False
    analysis = network.analysis
    over = {facts.node.name for facts in (*analysis.touching(space), *analysis.restating(space))}
    facts_by_name = {facts.node.name: facts for facts in analysis.facts.values()}
    shapes = Shapes(network, editor, inputs)
    for node in list(editor.module.graph.nodes):
        if node.name not in over and not shapes.reached(node):
            continue
        facts = facts_by_name.get(node.name)
        if facts is not None and node.op.startswith("call"):
            resplit = _restate_literals(editor, node, facts, sizes, facts_by_name) or resplit
            resplit = _resplit(node, facts, sizes) or resplit
        shapes.update(node)
        if facts is not None and node.op != "output":
            _compare(node, facts, sizes)
    return resplit


def _restate_literals(
    editor: Editor, node: fx.Node, facts: NodeFacts, sizes: Mapping[Space, int], known: Mapping[str, NodeFacts]
) -> bool:
    """Put the numbers among a node's arguments right; whether operators were added that compute one."""
    added = False
    for size in facts.sizes:
        if size.slot.on_module:
            continue
        wanted, present = _predicted(size, sizes), editor.get(node, size.slot)
        if isinstance(present, fx.Node) and size.within and present.meta["value"] < 0:  # a place counted from the end
            wanted -= sum(grown_size(term, sizes) for term in size.within)
        if isinstance(present, fx.Node) and isinstance(present.meta["value"], tuple):
            if _given(present, size) in (wanted, -1):
                continue
            present, added = _spread(editor, node, size, present), True
        if isinstance(present, fx.Node):  # it may have been read off another axis of equal size, which has grown
            added = _restate_computed(editor, node, size, present, wanted, known) or added
        elif size.as_tuple and any(isinstance(item, fx.Node) for item in present):
            given = tuple(values_of(present))
            if given != wanted:
                follow = zip(present, given, wanted, strict=True)
                editor.set(node, size.slot, tuple(item if has == number else number for item, has, number in follow))
        elif not _changes((*size.terms, *size.within), sizes):
            continue
        elif size.as_tuple or present != -1:
            editor.set(node, size.slot, wanted)
    return added


def _given(shape: fx.Node, size: SizeSlot) -> Any:
    """What a shape that is given as a whole (`reshape(y.shape)`) gives a slot."""
    return tuple(shape.meta["value"]) if size.as_tuple else shape.meta["value"][size.slot.path[-1]]


def _spread(editor: Editor, node: fx.Node, size: SizeSlot, shape: fx.Node) -> Any:
    """Give the sizes of a shape one by one in its place; the item, or items, that a slot stands for."""
    items = []
    with node.graph.inserting_before(node):
        for index, number in enumerate(shape.meta["value"]):
            item = node.graph.call_function(operator.getitem, (shape, index))
            stand_beside(item, node)
            item.meta["value"] = number
            items.append(item)
    path = size.slot.path if size.as_tuple else size.slot.path[:-1]
    editor.set(node, Slot(path, False), tuple(items))
    return tuple(items) if size.as_tuple else items[size.slot.path[-1]]


def _restate_computed(
    editor: Editor, node: fx.Node, size: SizeSlot, present: fx.Node, wanted: Any, known: Mapping[str, NodeFacts]
) -> bool:
    """A size that the graph computes: it stays where it follows by itself, else it becomes a literal.

    One that an input's size is a factor of (`view(b * heads, n, d)`) must go on to follow the input, by whole parts.
    One that is computed of widths alone follows none, whatever axis it is given to.
    """
    value = present.meta["value"]
    computed_of = known[present.name].output if present.name in known else None
    follows_input = any(leaf.frozen for term in size.terms for leaf in leaves(term)) and (
        not isinstance(computed_of, (Extent, Derived)) or varies(computed_of)
    )
    if not isinstance(value, int) or (value == wanted and not (follows_input and divides_anew(present, known))):
        return False
    computed = in_proportion(node, size, present, wanted, known) if follows_input else wanted
    if computed is not present:
        editor.set(node, size.slot, computed)
    return follows_input and computed is not present


def _resplit(node: fx.Node, facts: NodeFacts, sizes: Mapping[Space, int]) -> bool:
    """Chunk and split restate sizes in forms of their own: give the parts one by one, unless they are equal again."""
    if not facts.split_parts or not _changes(facts.split_parts, sizes):
        return False
    parts = [grown_size(part, sizes) for part in facts.split_parts]
    equal = len(set(parts)) == 1
    if node.target in ("chunk", torch.chunk):
        if equal:
            return False
        node.meta[CHUNK] = (node.op, node.target, node.args[1:], node.kwargs)
    source = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("tensor"))
    if equal and CHUNK in node.meta and isinstance(source, fx.Node):
        node.op, node.target, others, node.kwargs = node.meta.pop(CHUNK)
        node.args = (source, *others)
        return True
    node.op, node.target = "call_function", torch.split
    node.args, node.kwargs = (source, parts, facts.split_axis), {}
    return True


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
