"""The one way to change a graph: an editor over a module of its own, which shares every tensor not replaced."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn

from graphgrow.ir.facts import Slot
from graphgrow.ir.hooks import own_hooks
from graphgrow.ir.late import LateCode
from graphgrow.ir.meta import stand_beside
from graphgrow.ir.terms import Space

_UNSCALED = "_unscaled"  # ends the name of a node whose output is multiplied by a number


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module of its own over the same tensors: its mode and attributes are free, its parameters shared."""
    twin: nn.Module = object.__new__(type(module))  # copy.copy pickles, which takes as long as all of the rest
    attributes = twin.__dict__  # written past `__setattr__`: a part under torch.compile passes that on to its original
    attributes.update(module.__dict__)
    attributes["_parameters"], attributes["_buffers"] = dict(module._parameters), dict(module._buffers)
    own_hooks(twin)
    children = module._modules.items()
    attributes["_modules"] = {name: None if child is None else shallow_copy(child) for name, child in children}
    follow_flat_weights(twin)
    return twin


def follow_flat_weights(module: nn.Module) -> None:
    """A recurrent layer keeps a list of its parameters beside them: make it a list of its own, of the present ones."""
    if isinstance(module, nn.RNNBase):
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def rebuild(graph: fx.Graph, source: nn.Module, constants: dict[str, Any], name: str) -> LateCode:
    """A graph module over shallow copies of what the graph calls and fetches; its code is written when it is run.

    Args:
        graph: the graph, which becomes the module's own.
        source: where the targets are looked up.
        constants: targets that are not found there.
        name: class name of the result.
    """
    attributes: dict[str, Any] = {}
    copies: dict[int, nn.Module] = {}
    for node in graph.nodes:
        target = str(node.target)
        if node.op not in ("call_module", "get_attr") or target in attributes:
            continue
        if target in constants:
            attributes[target] = constants[target]
        elif node.op == "call_module":
            original = source.get_submodule(target)
            attributes[target] = copies.setdefault(id(original), shallow_copy(original))
        else:
            owner, _, field = target.rpartition(".")
            attributes[target] = getattr(source.get_submodule(owner), field)
    module = LateCode(attributes, graph, name)
    for target in [str(node.target) for node in graph.nodes if node.op == "get_attr"]:
        owner, _, field = target.rpartition(".")
        if target not in constants and field in source.get_submodule(owner)._non_persistent_buffers_set:
            module.get_submodule(owner)._non_persistent_buffers_set.add(field)
    put_in_order(module, source)
    module.train(source.training)
    return module


class Editor:
    """Edits a copy of a graph module; the original and its tensors stay as they are.

    Args:
        parent: the original.
        share: whether the copy shares the parent's parameters; buffers are always its own.
        module: the copy, where there is one already: an earlier editor's, which nobody else has seen.

    Attributes:
        module: the copy under edit.
        resized: the new sizes of spaces, where nothing but sizes was edited.
    """

    def __init__(self, parent: fx.GraphModule, share: bool = True, module: LateCode | None = None) -> None:
        self.module = module or rebuild(copy.deepcopy(parent.graph), parent, {}, type(parent).__name__)
        self.resized: Mapping[Space, int] = {}
        self._nodes: dict[str, fx.Node] = {node.name: node for node in self.module.graph.nodes}
        self._calls = {node: (node.target, node.args, node.kwargs) for node in self._nodes.values()}
        self._edited: set[str] = set()  # paths of the modules that were edited, and of all that hold them
        if module is None:
            for (_, mine), (_, theirs) in zip(self.module.named_modules(), _matching(parent, self.module), strict=True):
                mine.training = theirs.training
            self._own_tensors(buffers_only=share)

    def node(self, name: str) -> fx.Node:
        """The node of that name in the copy."""
        return self._nodes[name]

    def tensor(self, name: str) -> torch.Tensor:
        """A parameter or buffer by qualified name."""
        owner, _, field = name.rpartition(".")
        tensor = getattr(self.module.get_submodule(owner), field)
        assert isinstance(tensor, torch.Tensor)
        return tensor

    def set_tensor(self, names: Iterable[str], tensor: torch.Tensor) -> None:
        """Replace a parameter or buffer under all its names, keeping its kind and requires_grad."""
        first, *others = tuple(names)
        old = self.tensor(first)
        new: torch.Tensor = tensor
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(tensor, requires_grad=old.requires_grad)
        for name in (first, *others):
            owner, _, field = name.rpartition(".")
            holder = self.module.get_submodule(owner)
            self._note(name)
            store = holder._parameters if field in holder._parameters else holder._buffers
            store[field] = new  # type: ignore[assignment]  # a parameter stays one, a buffer too
            follow_flat_weights(holder)

    def get(self, node: fx.Node, slot: Slot) -> Any:
        """What stands in a slot; None where an argument was left out."""
        if slot.on_module:
            return getattr(self.module.get_submodule(str(node.target)), slot.path[0])
        return argument_at(node, slot.path)

    def set(self, node: fx.Node, slot: Slot, value: Any) -> None:
        """Put a value into a slot."""
        if slot.on_module:
            self.set_attribute(str(node.target), slot.path[0], value)
        elif slot.path[0] == "args":
            node.args = _with(tuple(node.args), slot.path[1:], value)
        else:
            node.kwargs = _with(dict(node.kwargs), slot.path[1:], value)

    def set_attribute(self, path: str, name: str, value: Any) -> None:
        """Give an attribute of a module another value."""
        setattr(self.module.get_submodule(path), name, value)
        self._note(path)

    def edited(self, node: fx.Node) -> bool:
        """Whether a node is new, or it, its module or its parameter was edited."""
        before = self._calls.get(node)
        if before is None or str(node.target) in self._edited:
            return True
        target, args, kwargs = before  # an edit puts others in their place
        return node.target is not target or node.args is not args or node.kwargs is not kwargs

    def multiply(self, node: fx.Node, factor: float) -> None:
        """Multiply what a node puts out by a number; the product takes over the node's name, and its readers."""
        users = list(node.users)
        only = users[0] if len(users) == 1 else None
        if only is not None and only.target is operator.mul and only.name == node.name.removesuffix(_UNSCALED):
            only.args = (node, only.args[1] * factor)  # type: ignore[operator]  # the factor of an earlier growth
            return
        name = node.name
        with node.graph.inserting_after(node):
            product = node.graph.call_function(operator.mul, (node, factor))
        node.replace_all_uses_with(product, delete_user_cb=lambda user: user is not product)
        stand_beside(product, node)
        product.meta["value"] = node.meta["value"]
        node.name, product.name = f"{name}{_UNSCALED}", name
        self._nodes[node.name], self._nodes[name] = node, product

    def finish(self) -> LateCode:
        """Check the graph's own consistency; its code is written anew when it is run."""
        if not self.resized:  # else every node stands where it stood
            self.module.graph.lint()
        self.module.postpone()
        return self.module

    def _note(self, path: str) -> None:
        while path and path not in self._edited:
            self._edited.add(path)
            path = path.rpartition(".")[0]

    def _own_tensors(self, buffers_only: bool) -> None:
        """Copy the buffers (always) and the parameters (where they are not shared), each once."""
        copies: dict[int, torch.Tensor] = {}
        for module in self.module.modules():
            stores: list[dict[str, Any]] = [module._buffers] if buffers_only else [module._buffers, module._parameters]
            for store in stores:
                for name, tensor in store.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in copies:
                        new = tensor.detach().clone()
                        if isinstance(tensor, nn.Parameter):
                            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
                        copies[id(tensor)] = new
                        copies[id(new)] = new
                    store[name] = copies[id(tensor)]
            follow_flat_weights(module)


def put_in_order(module: nn.Module, source: nn.Module) -> None:
    """Bring modules, parameters and buffers into the source's order; what the source does not have comes last.

    An optimizer's `state_dict` knows parameters by their position alone, and so do loops that zip two models: the order
    must be the model's own, and must not depend on whether what was put in came one by one, in a row, or from a ledger.
    """
    pairs = [(module, source)]
    while pairs:
        mine, theirs = pairs.pop()
        for store, model in (
            (mine._modules, theirs._modules),
            (mine._parameters, theirs._parameters),
            (mine._buffers, theirs._buffers),
        ):
            _reorder(store, model)
        pairs += [
            (child, other)
            for name, child in mine._modules.items()
            if child is not None and (other := theirs._modules.get(name)) is not None
        ]


def _reorder(store: dict[str, Any], model: Mapping[str, Any]) -> None:
    """Move the keys of a dictionary into the order that another one has."""
    wanted = [*(name for name in model if name in store), *(name for name in store if name not in model)]
    if wanted != list(store):
        for name in wanted:
            store[name] = store.pop(name)


def argument_at(node: fx.Node, path: tuple[Any, ...]) -> Any:
    """The argument of a node at a path; a node that computes a container of it whole, if one stands on the way."""
    value: Any = node.args if path[0] == "args" else node.kwargs
    for key in path[1:]:
        if isinstance(value, fx.Node):
            return value
        if isinstance(value, slice):
            value = getattr(value, key)
        elif isinstance(value, dict):
            value = value.get(key)
        else:
            value = value[key]
    return value


def _matching(parent: nn.Module, child: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """The parent's modules under the names of the child's."""
    return [(name, parent.get_submodule(name)) for name, _ in child.named_modules()]


def _with(container: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A container with one nested item replaced."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(container, slice):
        parts = {name: getattr(container, name) for name in ("start", "stop", "step")}
        parts[key] = _with(parts[key], rest, value)
        return slice(parts["start"], parts["stop"], parts["step"])
    if isinstance(container, dict):
        return {**container, key: _with(container.get(key), rest, value)}
    items = list(container)
    items[key] = _with(items[key], rest, value)
    return tuple(items) if isinstance(container, tuple) else items
