"""Putting blocks into a graph: new nodes and modules, readers redirected, and the check of every shape."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from graphgrow.blocks.block import Block
from graphgrow.ir.editor import Editor
from graphgrow.ir.meta import STACK
from graphgrow.network.memory import overwritten
from graphgrow.network.neighbours import near_parameters
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.shapes import check_shapes
from graphgrow.rewrite.tensors import laid_out_like


class Insertion:
    """New nodes in an editor's copy of a graph, and the step that tells of them.

    Args:
        network: the parent.
        editor: over a copy of the parent's module.
        site: the name of the site behind which everything is put; new modules take its device and dtype, and stand
            beside it under its path and the name of the pass.
        name: of the pass.
        generator: of the starting weights.

    Attributes:
        site: the site's node in the copy.
        path: where new modules go: `layer1.0_deepen` for the site `layer1.0` and the pass `deepen`.
    """

    def __init__(self, network: Network, editor: Editor, site: str, name: str, generator: torch.Generator) -> None:
        self.network, self.editor, self._generator = network, editor, generator
        self.site = editor.node(network.sites.find(site).name)
        self.path = fresh_path(editor.module, site, name)
        around, path = self.site.meta.get(STACK) or {}, site.partition("@")[0]
        self._around = {key: item for key, item in around.items() if not f"{item[0]}.".startswith(f"{path}.")}
        self._cursor = self.site
        self._created: dict[fx.Node, None] = {}
        self._moved: dict[str, str] = {}
        self._present = {name for name, _ in _tensors(editor.module)}

    # -- what is put in ------------------------------------------------------------------------------------

    def make(self, block: Callable[[], Block]) -> Block:
        """A block on the device and in the dtype of the site, its weights started from the generator.

        They are drawn on the CPU in float32 and then cast and moved, so that they are equal on every device.
        """
        device, dtype = self._place()
        with torch.device("meta"):
            made = block()
        if device.type == "meta":
            return made.to(dtype)
        made = made.to_empty(device="cpu")
        made.start(self._generator)
        made = made.to(device=device, dtype=dtype)
        near = [p for p in near_parameters(self.editor.module, self.site) if p.dim() in (4, 5)][:1]
        for tensor in made.parameters():
            if near and tensor.dim() == near[0].dim():  # channels_last, where that is how the neighbour lies
                tensor.data = laid_out_like(tensor.detach(), near[0])
        return made.train(self.editor.module.training)

    def inline(self, block: Block, inputs: Sequence[fx.Node], path: str = "") -> fx.Node:
        """Write a block's operators into the graph, behind the last new node.

        Args:
            block: its leaf modules become the graph's, under `path`.
            inputs: nodes of the copy, one for each input of the block's forward.
            path: where its modules go; by default the path of the insertion.

        Returns:
            The node of its result.
        """
        path = path or self.path
        self.editor.module.add_submodule(path, block)
        values: dict[fx.Node, Any] = {}
        feeding = iter(inputs)
        for node in _BlockTracer().trace(block).nodes:
            if node.op == "placeholder":
                values[node] = next(feeding)
            elif node.op == "output":
                result: fx.Node = values[node.args[0]]
                return result
            else:
                target = f"{path}.{node.target}" if node.op in ("call_module", "get_attr") else node.target
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = self.add(node.op, target, args, kwargs, path)
        raise AssertionError("a block without a result")

    def add(self, op: str, target: Any, args: Any, kwargs: Any = None, path: str = "") -> fx.Node:
        """One new node behind the last one; behind all inputs of the model, where that is one of them."""
        graph = self.editor.module.graph
        while self._cursor.op == "placeholder" and self._cursor.next.op == "placeholder":
            self._cursor = self._cursor.next
        with graph.inserting_after(self._cursor):
            node = graph.create_node(op, target, tuple(args), dict(kwargs or {}))
        node.meta[STACK] = {**self._around, path: (path, Block)} if path else dict(self._around)
        self._cursor = node
        self._created[node] = None
        return node

    def behind(self, node: fx.Node) -> None:
        """Go on behind this node of the copy."""
        self._cursor = node

    def readable(self, node: fx.Node) -> fx.Node:
        """A node of the copy that may be read far behind it: where it is overwritten in place, a clone from before."""
        if not overwritten(node, self.editor.module):
            return node
        cursor, self._cursor = self._cursor, node
        clone = self.add("call_method", "clone", (node,))
        if cursor is not node:
            self._cursor = cursor
        return clone

    def carry_on(self, old: fx.Node, new: fx.Node) -> None:
        """Let every reader of a node that is not new itself read another."""
        for reader in [user for user in old.users if user not in self._created]:
            reader.replace_input_with(old, new)
        self._moved[old.name] = new.name

    # -- what came of it -----------------------------------------------------------------------------------

    def step(self) -> Step:
        """The step, after every shape was checked against the parent's.

        Raises:
            StructureError: if an operator fails, or a value that was there before has another shape.
        """
        check_shapes(self.network, self.editor)
        return Step(
            moved=dict(self._moved),
            created=frozenset(node.name for node in self._created),
            touched=tuple(name for name, _ in _tensors(self.editor.module) if name not in self._present),
        )

    def _place(self) -> tuple[torch.device, torch.dtype]:
        tensor = next(near_parameters(self.editor.module, self.site), None)
        meta = self.site.meta["value"]
        return (self.network.inputs.device if tensor is None else tensor.device), meta.dtype


class _BlockTracer(fx.Tracer):
    """Leaves are the modules of torch.nn and of graphgrow.layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, (Block, nn.Sequential))


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def fresh_path(module: nn.Module, site: str, name: str) -> str:
    """A module path beside the site's that is not taken: `layer1.0` -> `layer1.0_deepen`, `layer1.0_deepen2`, ..."""
    stem = site.replace(":", ".").replace("@", "_").strip(".")
    word = name.replace("-", "_")
    for number in itertools.count(1):
        path = f"{stem}_{word}" + (str(number) if number > 1 else "")
        owner, _, field = path.rpartition(".")
        if not _exists(module, owner, field):
            return path
    raise AssertionError("numbers end")


def _exists(module: nn.Module, owner: str, field: str) -> bool:
    try:
        return hasattr(module.get_submodule(owner), field)
    except AttributeError:  # torch's word for a path that does not exist
        return False
