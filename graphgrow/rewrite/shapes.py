"""Example values of an edited graph: only the nodes that an edit can have reached are run again."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx

from graphgrow.errors import StructureError
from graphgrow.ir.editor import Editor
from graphgrow.ir.inputs import InputSpec
from graphgrow.ir.meta import MetaRunner, to_meta, values_of
from graphgrow.network.network import Network, placeholder_values
from graphgrow.ops.sizes import only_kind_read

_FAILURES = (RuntimeError, ValueError, AssertionError, TypeError, IndexError)


class Shapes:
    """Brings the example values of an editor's copy up to date, node after node in graph order.

    A node that was not edited, and whose inputs have the example values that they had, keeps its own: what it would
    put out on the meta device is the same.

    Args:
        network: the parent, whose example values the copy came with.
        editor: over a copy of the parent's module.
        inputs: of the copy, where they are others than the parent's.
    """

    def __init__(self, network: Network, editor: Editor, inputs: InputSpec | None = None) -> None:
        self._inputs = placeholder_values(editor.module, inputs or network.inputs)
        self._editor, self._runner = editor, MetaRunner(editor.module, network.answers)
        self._changed: set[fx.Node] = set()

    def reached(self, node: fx.Node) -> bool:
        """Whether a node, or something it reads, is not what it was."""
        if "value" not in node.meta or self._editor.edited(node):
            return True
        return not self._changed.isdisjoint(node.all_input_nodes)

    def update(self, node: fx.Node) -> Any:
        """Run a node on the meta device, and return its example value.

        Raises:
            StructureError: if it fails on what it is given.
        """
        before = node.meta.get("value", self)  # self: nothing is equal to it
        value = self._value(node)
        if not _same(before, value):
            node.meta["value"] = value
            self._changed.add(node)
        return node.meta["value"]

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return to_meta(self._inputs[node.name])
        if node.op == "output":
            return values_of(node.args[0])
        try:
            return self._runner.run_node(node)
        except _FAILURES as error:
            raise StructureError(f"`{node.name}` ({node.target}) fails in the grown network: {error}") from error


def check_shapes(network: Network, editor: Editor) -> None:
    """Bring the copy's example values up to date; those that were there before must keep shape and dtype.

    A parameter that is fetched for its dtype alone may have another shape.

    Raises:
        StructureError: if an operator fails on what it is given, or a shape is another.
    """
    before = {node.name: node.meta.get("value") for node in network.module.graph.nodes}
    shapes = Shapes(network, editor)
    for node in editor.module.graph.nodes:
        if not shapes.reached(node):
            continue
        was, now = before.get(node.name), shapes.update(node)
        if not isinstance(was, torch.Tensor) or not isinstance(now, torch.Tensor):
            continue
        form = now.shape if node.op == "get_attr" and only_kind_read(node) else was.shape
        if (form, was.dtype) != (now.shape, now.dtype):
            found, wanted = (f"shape {tuple(t.shape)} and {t.dtype}" for t in (now, was))
            raise StructureError(f"`{node.name}` has {found} where it had {wanted}")


def _same(a: Any, b: Any) -> bool:
    """Whether two example values are alike for every operator that reads them."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.layout == b.layout and a.stride() == b.stride()
    if type(a) is not type(b):
        return False
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(_same, a.values(), b.values()))
    if dataclasses.is_dataclass(a):  # whose own == compares tensors, and has no answer for more than one number
        return _same(
            [getattr(a, field.name) for field in dataclasses.fields(a)],
            [getattr(b, field.name) for field in dataclasses.fields(b)],
        )
    return bool(a == b)
