"""Running a graph node by node in another dtype, keeping no value and no converted tensor longer than needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import fx

from graphgrow.ir.inputs import bind
from graphgrow.layers import require_admitted, require_dtypes, require_values
from graphgrow.rewrite.draws import draw, is_random, settled
from graphgrow.verification.noise import is_noise, steady_function
from graphgrow.verification.numbers import Numbers, converted, own_copy
from graphgrow.verification.places import Places
from graphgrow.verification.precision import in_double
from graphgrow.verification.probes import Inputs


class NodeFails(Exception):
    """A graph cannot be run.

    Attributes:
        node: name of the node that fails.
        of_parent: whether it is the parent's, which is what a child may not be held against.
    """

    def __init__(self, node: str, of_parent: bool, error: Exception) -> None:
        super().__init__(f"`{node}` fails: {str(error).partition(chr(10))[0]}")
        self.node, self.of_parent = node, of_parent


def _names_dtype(node: fx.Node) -> bool:
    """Whether a dtype stands among a node's arguments."""
    found: list[torch.dtype] = []

    def see(leaf: Any) -> None:
        if isinstance(leaf, torch.dtype):
            found.append(leaf)

    fx.node.map_aggregate((node.args, node.kwargs), see)
    return bool(found)


class Runner:
    """Executes the nodes of a graph module one at a time, noise steady; the module and its tensors stay as they are.

    Args:
        module: the graph module.
        inputs: of the model.
        numbers: its tensors in the dtype that is computed in.
        of_parent: whether it is the parent's.
        seen: what is compared of the outputs.
        places: of a child, where the parent's units are by node: there random numbers are the parent's.

    Attributes:
        module: the graph module.
        numbers: its tensors in the dtype that is computed in.
        values: by node name, the values that are still needed.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        inputs: Inputs,
        numbers: Numbers,
        of_parent: bool = False,
        seen: Callable[[Any], Any] | None = None,
        places: Places | None = None,
    ) -> None:
        self._of_parent, self._seen, self._places = of_parent, seen, places or {}
        self.module, self.numbers = module, numbers
        self.values: dict[str, Any] = {}
        self._buffers: dict[int, torch.Tensor] = {}
        names = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
        self._inputs = bind(names, *inputs)
        self._naming: set[str] = set()  # nodes among whose own arguments a dtype stands
        self._last_use: dict[str, list[str]] = {}
        last: dict[str, str] = {}
        for node in module.graph.nodes:
            if _names_dtype(node):
                self._naming.add(node.name)
            for used in node.all_input_nodes:
                last[used.name] = node.name
        for name, user in last.items():
            self._last_use.setdefault(user, []).append(name)

    def run(self, node: fx.Node) -> Any:
        """Execute one node, whose inputs have been executed before.

        Raises:
            NodeFails: if torch refuses to.
        """
        try:
            value = self._value(node)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
            raise NodeFails(node.name, self._of_parent, error) from error
        if isinstance(value, torch.dtype):
            value = self.numbers.named(value)
        self.values[node.name] = value
        return value

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.input(node)
        if node.op == "output":
            value = self.arguments(node.args[0])
            return value if self._seen is None else self._seen(value)
        return self._execute(node, self.arguments(node.args), self.arguments(node.kwargs), self._buffers)

    def apply(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """What a node computes from other arguments; the buffers that it writes to are thrown away."""
        return self._execute(node, args, kwargs, {})

    def release(self, node: fx.Node) -> None:
        """Forget the values that no node behind this one needs."""
        for name in self._last_use.get(node.name, ()):
            self.values.pop(name, None)

    def arguments(self, arguments: Any) -> Any:
        """Arguments with nodes replaced by their values."""
        return fx.node.map_arg(arguments, lambda node: self.values[node.name])

    def buffers(self) -> dict[str, torch.Tensor]:
        """The buffers as they are now, after the nodes that were run."""
        return {name: self._buffers.get(id(buffer), buffer) for name, buffer in self.module.named_buffers()}

    def finish(self) -> Any:
        """Run all nodes; returns the output."""
        for node in self.module.graph.nodes:
            value = self.run(node)
            if node.op == "output":
                return value
            self.release(node)
        raise AssertionError("a graph without an output")

    def input(self, node: fx.Node) -> Any:
        """What a placeholder stands for."""
        return self._inputs.get(str(node.target), node.args[0] if node.args else None)

    def _execute(self, node: fx.Node, args: Any, kwargs: Any, buffers: dict[int, torch.Tensor]) -> Any:
        if node.target in (require_admitted, require_dtypes, require_values):
            return None  # decided by the model as it is, not in the numbers that it is computed with here
        if node.op == "get_attr":
            return self._attribute(str(node.target), buffers)
        if node.name in self._naming:
            args, kwargs = self.numbers.named((args, kwargs))
        if node.op == "call_module":
            called = self.module.get_submodule(str(node.target))
            own = type(called).__module__.startswith(("torch.nn.", "graphgrow."))
            with nullcontext() if own else settled(node):  # a leaf of the user's may draw what it likes
                return converted(called, self.numbers, buffers)(*args, **kwargs)
        made = in_double(node, args, kwargs) if self.numbers.dtype is torch.float64 else kwargs
        if is_noise(node):
            return steady_function(*args, **made)
        if is_random(node):  # in its own dtype: of another one, a generator gives other numbers
            drawn = draw(node, partial(self._call, node), args, kwargs, self._places.get(node.name))
            return drawn if made is kwargs else drawn.double()
        return self._call(node, args, made)

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_method":
            return getattr(args[0], self.numbers.cast(str(node.target)))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _attribute(self, path: str, buffers: dict[int, torch.Tensor]) -> Any:
        owner, _, name = path.rpartition(".")
        holder = self.module.get_submodule(owner)
        value = getattr(holder, name)
        if not isinstance(value, torch.Tensor):
            return value
        return own_copy(value, self.numbers, buffers) if name in holder._buffers else self.numbers.of(value)
