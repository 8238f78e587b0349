"""From what Dynamo recorded to a graph like fx's: called as the model is, over its layers and its named tensors."""

from __future__ import annotations

import inspect
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import base_types
from torch.utils import _pytree as pytree

from graphgrow.capture.dynamo.leaf_calls import layer_call
from graphgrow.capture.dynamo.recording import InputTensor, Keys, Recording, Size, dtype_of
from graphgrow.capture.graphs.writes import is_inplace
from graphgrow.capture.model.outputs import Built
from graphgrow.capture.stand_ins.dtypes import cast_by_name
from graphgrow.capture.stand_ins.functions import AUTOCAST
from graphgrow.errors import CaptureError
from graphgrow.ir.meta import STACK
from graphgrow.layers import require_dtypes, require_same

_WITHOUT_EFFECT = {"_log_api_usage_once", "_enter_autocast", "_exit_autocast", "lazy_load_decompositions"}


def raise_graph(
    model: nn.Module,
    recording: Recording,
    inputs: Mapping[str, Any],
    constants: dict[str, torch.Tensor],
    assumed: frozenset[str] = frozenset(),
) -> fx.Graph:
    """Write a recording as a graph of the model's layers.

    Args:
        model: that was recorded.
        recording: in one mode.
        inputs: by name of each parameter of the forward, the example: all those of the signature, and keywords besides.
        constants: takes in tensors that the model does not hold by a name, by the name that they get.
        assumed: names of inputs that the user left out; their examples are what they are from now on.

    Raises:
        CaptureError: if something in it has no counterpart.
    """
    return _Raising(model, recording, inputs, constants, assumed).run()


class _Raising:
    def __init__(
        self,
        model: nn.Module,
        recording: Recording,
        inputs: Mapping[str, Any],
        constants: dict[str, torch.Tensor],
        assumed: frozenset[str],
    ) -> None:
        self._assumed = assumed
        self._model, self._recording, self._inputs, self._constants = model, recording, inputs, constants
        self._graph = fx.Graph()
        self._names = names_by_identity(model)
        self._paths = {path for path, _ in model.named_modules(remove_duplicate=False)}
        self._arguments: dict[str, fx.Node] = {}
        self._sizes: dict[tuple[Keys, int], fx.Node] = {}
        self._fetched: dict[str, fx.Node] = {}
        self._device_node: fx.Node | None = None
        self._dtypes: dict[int, fx.Node] = {}
        self._frozen_gradients: list[fx.Node] | None = None

    def run(self) -> fx.Graph:
        self._take_inputs()
        self._fetch_tensors()
        self._check_dtypes()
        self._copy(self._recording.module, self._origin_of)
        self._graph.output(self._returned(self._recording.answer))
        return self._graph

    # -- inputs ------------------------------------------------------------------------------------------------

    def _take_inputs(self) -> None:
        """Placeholders like the forward's parameters; values that are no tensors are checked at each call."""
        signature = inspect.signature(self._model.forward).parameters
        for name, example in self._inputs.items():
            default = signature[name].default if name in signature else None
            default = example if name in self._assumed else default
            self._arguments[name] = self._graph.placeholder(name, default_value=default)
        for name, example in self._inputs.items():
            self._check_fixed((name,), example)

    def _fetch_tensors(self) -> None:
        """The model's tensors in its own order: by first use it would differ between the modes."""
        origins = [origin for node, origin in self._recording.origins.items() if node.users]
        held = [origin for origin in origins if isinstance(origin, torch.Tensor) and id(origin) in self._names]
        places = {identity: place for place, identity in enumerate(self._names)}
        for tensor in sorted(held, key=lambda tensor: places[id(tensor)]):
            self._tensor(tensor)

    def _check_dtypes(self) -> None:
        """The dtypes of the tensors off which those of the graph are read."""
        check = self._recording.dtypes
        if check is not None:
            found = tuple(self._dtype_of(source) for source in range(len(check.origins)))
            self._graph.call_function(require_dtypes, (found, list(check.admitted), check.line))

    def _dtype_of(self, source: int) -> fx.Node:
        """The dtype of a tensor, as a node, so that the graph may be cast."""
        assert self._recording.dtypes is not None
        if source not in self._dtypes:
            origin = self._recording.dtypes.origins[source]
            tensor = self._input(origin.keys) if isinstance(origin, InputTensor) else self._tensor(origin)
            self._dtypes[source] = self._graph.call_function(getattr, (tensor, "dtype"))
        return self._dtypes[source]

    def _check_fixed(self, keys: Keys, example: Any) -> None:
        if isinstance(example, torch.Tensor):
            return
        if isinstance(example, (tuple, list, dict)) and _holds_tensor(example):
            items = example.items() if isinstance(example, dict) else enumerate(example)
            for key, item in items:
                self._check_fixed((*keys, key), item)
            return
        if not _is_literal(example):
            raise CaptureError(
                f"the input `{keys[-1]}` is a {type(example).__name__}; wanted tensors and plain values in lists, "
                "tuples and dicts"
            )
        self._graph.call_function(require_same, (self._input(keys), example, str(keys[-1])))

    def _input(self, keys: Keys) -> fx.Node:
        node = self._arguments[str(keys[0])]
        for key in keys[1:]:
            node = self._graph.call_function(operator.getitem, (node, key))
        return node

    def _origin_of(self, node: fx.Node) -> fx.Node:
        origin = self._recording.origins[node]
        if isinstance(origin, InputTensor):
            return self._input(origin.keys)
        return self._size(origin) if isinstance(origin, Size) else self._tensor(origin)

    def _size(self, size: Size) -> fx.Node:
        place = (size.keys, size.axis)
        if place not in self._sizes:
            shape = self._graph.call_function(getattr, (self._input(size.keys), "shape"))
            self._sizes[place] = self._graph.call_function(operator.getitem, (shape, size.axis))
        return self._sizes[place]

    def _tensor(self, tensor: torch.Tensor) -> fx.Node:
        """A tensor of the model by its name, one that has none as a constant of the graph."""
        name = self._names.get(id(tensor))
        if name is None:
            name = next((known for known, other in self._constants.items() if other is tensor), None)
        if name is None:
            name = f"constant_{len(self._constants)}"
            self._constants[name] = tensor
        if name not in self._fetched:
            self._fetched[name] = self._graph.get_attr(name)
        return self._fetched[name]

    def _device(self) -> fx.Node:
        """The device of the inputs, as a node, so that the graph may move."""
        if self._device_node is None:
            keys = next(iter(self._recording.axes))
            self._device_node = self._graph.call_function(getattr, (self._input(keys), "device"))
        return self._device_node

    # -- nodes -------------------------------------------------------------------------------------------------

    def _copy(self, module: fx.GraphModule, placeholder: Callable[[fx.Node], fx.Node]) -> Any:
        """Copy the nodes of one of Dynamo's graphs; what it puts out."""
        values: dict[fx.Node, Any] = {}
        self._values = values
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = placeholder(node) if node.users or module is not self._recording.module else None
            elif node.op == "output":
                return self._arguments_of(node.args[0], values)
            else:
                values[node] = self._node(module, node, values)
        return None

    def _node(self, module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        if node.op == "get_attr":
            attribute = _attribute(module, str(node.target))
            return self._tensor(attribute) if isinstance(attribute, torch.Tensor) else attribute
        name = str(getattr(node.target, "__name__", node.target))
        if name == "_enter_autocast" and node.args[2]:
            raise CaptureError(AUTOCAST)
        if node.op == "call_function" and name in _WITHOUT_EFFECT:
            return None
        if node.target is torch._C._set_grad_enabled:
            self._switch_gradients(bool(node.args[0]), values)
            return None
        args, kwargs = self._arguments_of((node.args, dict(node.kwargs)), values)
        if node.target is dtype_of:
            return self._dtype_of(args[0])
        if node.target is torch.Size:
            return tuple(args[0])  # sizes one by one, each of which a view may restate
        if node.target in (operator.getitem, operator.add) and isinstance(args[0], (tuple, list)):
            return node.target(*args)
        if node.target is torch.ops.higher_order.tag_activation_checkpoint:
            return self._inlined(args[0], args[1:])
        if any(isinstance(arg, fx.GraphModule) for arg in args):
            if "autograd" not in str(node.target):
                raise CaptureError(
                    f"`{name}` chooses or repeats pieces of code by the numbers in tensors, which a graph does not "
                    "hold; mark the submodule as a leaf"
                )
            raise CaptureError(
                f"`{name}` has a backward of its own (as a torch.autograd.Function has), which a graph cannot "
                "keep; mark the submodule as a leaf"
            )
        if node.op == "call_function" and "_functorch" in str(getattr(node.target, "__module__", "")):
            raise CaptureError(f"it uses `{name}` of torch.func, for which a graph has no node")
        if self._frozen_gradients is not None and args and is_inplace(node, self._model):
            outside = not self._made_here(node.args[0])
            first = self._without_gradient(args[0], written=True) if outside else args[0]
            args = (first, *(self._without_gradient(arg, written=False) for arg in args[1:]))
        target = node.target
        if node.op == "call_method" and target == "type" and len(args) > 1:
            target, args = cast_by_name(tuple(args), self._example_tensors()[0].device.type)
        if node.target is layer_call:
            made = self._graph.call_module(args[0], tuple(args[1:]), kwargs)
        else:
            made = self._graph.create_node(node.op, target, tuple(args), kwargs, node.name)
        made.meta[STACK] = self._stack(node)
        made.stack_trace = node.stack_trace
        if self._frozen_gradients is not None:
            self._frozen_gradients.append(node)
        return made

    def _inlined(self, body: fx.GraphModule, args: tuple[Any, ...]) -> Any:
        """The body of a checkpointed region, which computes the same without being checkpointed."""
        outer, given = self._values, iter(args)
        result = self._copy(body, lambda _: next(given))
        self._values = outer
        return result

    def _arguments_of(self, arguments: Any, values: dict[fx.Node, Any]) -> Any:
        """Arguments over the new nodes; items of results that are known as tuples are looked up at once."""
        mapped = fx.node.map_aggregate(arguments, lambda leaf: values[leaf] if isinstance(leaf, fx.Node) else leaf)
        here = {leaf.device for leaf in self._example_tensors()}
        return fx.node.map_aggregate(
            mapped, lambda leaf: self._device() if isinstance(leaf, torch.device) and leaf in here else leaf
        )

    def _example_tensors(self) -> list[torch.Tensor]:
        return [leaf for leaf in pytree.tree_leaves(dict(self._inputs)) if isinstance(leaf, torch.Tensor)]

    def _switch_gradients(self, enabled: bool, values: dict[fx.Node, Any]) -> None:
        """Values that were computed without gradients, and are read outside of that region, are detached."""
        if not enabled:
            self._frozen_gradients = self._frozen_gradients or []
            return
        for node in self._frozen_gradients or []:
            made, inside = values.get(node), set(self._frozen_gradients or [])
            example = node.meta.get("example_value")
            if not isinstance(made, fx.Node) or not isinstance(example, torch.Tensor):
                continue
            if example.is_floating_point() and any(user not in inside for user in node.users) and self._learns(made):
                detached = self._graph.call_method("detach", (made,))
                detached.meta[STACK] = made.meta[STACK]
                values[node] = detached
        self._frozen_gradients = None

    def _made_here(self, node: Any) -> bool:
        """Whether a tensor was made since gradients were switched off, with memory of its own."""
        example = node.meta.get("example_value") if isinstance(node, fx.Node) else None
        made = node in (self._frozen_gradients or ())
        return made and isinstance(example, torch.Tensor) and not example._is_view()

    def _without_gradient(self, arg: Any, written: bool) -> Any:
        """What an operator in place reads or writes without gradients; what was written before may have one."""
        if not isinstance(arg, fx.Node) or not (self._learns(arg) or (written and arg.op != "get_attr")):
            return arg
        return self._graph.call_method("detach", (arg,))

    def _learns(self, node: fx.Node) -> bool:
        """Whether a gradient could flow from a node to a parameter or an input of floating point."""
        pending, seen = [node], {node}
        while pending:
            here = pending.pop()
            if here.op in ("placeholder", "call_module"):
                return True
            if here.op == "get_attr" and isinstance(self._held(str(here.target)), nn.Parameter):
                return True
            for used in here.all_input_nodes:
                if used not in seen and used.target not in (getattr,):
                    seen.add(used)
                    pending.append(used)
        return False

    def _held(self, name: str) -> Any:
        return self._constants[name] if name in self._constants else _attribute(self._model, name)

    def _stack(self, node: fx.Node) -> dict[str, tuple[str, Any]]:
        """The modules around a node by their paths in the model, as fx keeps them."""
        entries = list((node.meta.get(STACK) or {}).values())
        stack: dict[str, tuple[str, Any]] = {}
        if not entries:
            return stack
        root = str(entries[0][0])
        for path, kind in entries:
            inner = str(path).removeprefix(root).removeprefix(".")
            if inner in self._paths:
                stack[inner] = (inner, kind)
        return stack

    # -- output ------------------------------------------------------------------------------------------------

    def _returned(self, answer: Any) -> Any:
        if isinstance(answer, Built):
            fields = {name: self._returned(item) for name, item in answer.fields.items()}
            return self._graph.call_function(answer.kind, (), fields)
        if isinstance(answer, InputTensor):
            return self._input(answer.keys)
        if isinstance(answer, fx.Node):
            return self._values[answer]
        if isinstance(answer, torch.Tensor):
            return self._tensor(answer)
        if isinstance(answer, tuple) and hasattr(answer, "_fields"):
            return type(answer)(*map(self._returned, answer))
        if isinstance(answer, (tuple, list)):
            return type(answer)(map(self._returned, answer))
        if isinstance(answer, OrderedDict):
            return self._graph.call_function(OrderedDict, ([(k, self._returned(v)) for k, v in answer.items()],))
        if isinstance(answer, dict):
            return {key: self._returned(item) for key, item in answer.items()}
        return answer


def names_by_identity(model: nn.Module) -> dict[int, str]:
    """The first qualified name of each tensor that a model holds: parameters, buffers, then plain attributes."""
    names: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        names.setdefault(id(tensor), name)
    for path, part in model.named_modules():
        for field, value in part.__dict__.items():
            if isinstance(value, torch.Tensor):
                names.setdefault(id(value), f"{path}.{field}" if path else field)
    return names


def _attribute(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part)
    return root


def _holds_tensor(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))


def _is_literal(value: Any) -> bool:
    """Whether a value can stand in the code of a graph."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_literal, value))
    if type(value) is dict:
        return all(map(_is_literal, value.values()))
    return value is None or value is Ellipsis or isinstance(value, (slice, range, *base_types))
