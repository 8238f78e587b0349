"""An fx tracer whose proxies carry example values on the meta device.

Control flow on shapes, `len`, iteration and assertions resolves by the example; sizes that go into operators
stay nodes of the graph, so that the batch size stays free.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import count
from typing import Any

import torch
from torch import fx, nn
from torch.fx.immutable_collections import immutable_dict
from torch.utils import _pytree as pytree

from graphgrow.capture.graphs.writes import Write, run_watched, storages_of
from graphgrow.capture.model.caches import WITHOUT
from graphgrow.capture.model.clock import Clock
from graphgrow.capture.model.compiled import is_compiled
from graphgrow.capture.model.parametrised import is_parametrised
from graphgrow.capture.model.running import InputView, layer_by_layer
from graphgrow.capture.stand_ins.assigned import assignments_seen, store_assigned
from graphgrow.capture.stand_ins.dtypes import OF_PYTHON, cast_by_name, dtypes_seen, named_type
from graphgrow.capture.stand_ins.einops import einops_open
from graphgrow.capture.stand_ins.exchanged import builtins_called
from graphgrow.capture.stand_ins.expansions import expansion_of
from graphgrow.capture.stand_ins.factories import factories_seen
from graphgrow.capture.stand_ins.functions import WHILE_TRACED, Seen, calls_seen, grouped_products
from graphgrow.capture.stand_ins.of_numpy import pythonic, tensor_of_array
from graphgrow.capture.stand_ins.of_torch import (
    checks_recorded,
    layers_stay,
    masks_taken_as_given,
    parameters_of_distributions_unchecked,
    scripts_open,
    variables_are_tensors,
    wrapped_functions_open,
)
from graphgrow.capture.stand_ins.own_functions import own_functions_kept
from graphgrow.capture.stand_ins.packed import SEQUENCES, Packed, layer_over, run_packed
from graphgrow.capture.stand_ins.proxies import (
    ValueProxy,
    examples_asked,
    holds_proxy,
    is_callable,
    kind_of,
    nothing_asked,
    opened,
)
from graphgrow.capture.stand_ins.wrappers import called_by_name
from graphgrow.capture.tracing.by_values import OnExamples, ValuesError, decided_by_values
from graphgrow.capture.tracing.conditions import Conditions, Outcomes
from graphgrow.capture.tracing.held import Held, Made
from graphgrow.capture.tracing.known import known_value
from graphgrow.capture.tracing.numbers import numbers_asked, numbers_listed
from graphgrow.capture.tracing.places import places_asked
from graphgrow.capture.tracing.without_gradient import WithoutGradient
from graphgrow.errors import CaptureError
from graphgrow.ir.answers import Answers
from graphgrow.ir.meta import FIXED, MetaRunner, to_meta, values_of
from graphgrow.layers import form_of, require_admitted, require_form, require_same
from graphgrow.layers.requirements import besides
from graphgrow.ops.registry import load_rules, module_rule, own_functions

_LEAVES = (torch.Tensor, bool, int, float, str, type(None))
_SHAPE_CHANGES = {"unsqueeze_", "squeeze_", "transpose_", "swapaxes_", "swapdims_", "t_"}


class ShapeTracer(fx.Tracer):
    """Traces one mode of a module with example inputs.

    Args:
        examples: by name of the forward's parameter, the example value; a parameter without one keeps its default.
        leaves: module classes, or module paths, that are not looked into.
        fixed: by name of the forward's parameter, a value that the graph is specialised to (None, a flag, a string);
            the graph refuses to be called with another.
        ints_free: whether `int()` of a computed size is a node; else it is the example's number, which is checked.
        clock: ends the trace at the next operator when its time is over.
        leaf_outputs: by path, what those leaves returned on the example inputs, one item a call (on meta).
        answers: what operators have answered so far; none where it is left out.
        outcomes: of the forward's conditions by values.

    Attributes:
        conditions: what the forward decides by values.
        writes: the nodes that overwrite memory.
        overtaken: storages of those constants that are overwritten.
        running: whether a single operator is run on the examples just now, which is not recorded.
        ints: how many calls of `int()` are nodes.
        assigned: by name of a buffer, what the forward has put in its place.
        replaced: by path, the layers that the graph calls in the place of the model's.
        device_type: of the model and its inputs, which the examples do not show; empty where they are on several.
    """

    def __init__(
        self,
        examples: dict[str, Any],
        leaves: Sequence[type[nn.Module] | str] = (),
        leaf_outputs: dict[str, list[Any]] | None = None,
        fixed: dict[str, Any] | None = None,
        ints_free: bool = True,
        clock: Clock | None = None,
        answers: Answers | None = None,
        outcomes: Outcomes = (),
    ) -> None:
        super().__init__(param_shapes_constant=False)
        self.conditions = Conditions(self, outcomes)
        self._ints_free = ints_free
        self._clock, self._answers = clock or Clock(), answers
        self._fixed = fixed or {}
        self._leaf_outputs = {path: list(outputs) for path, outputs in (leaf_outputs or {}).items()}
        self._examples = examples
        self._on_examples = OnExamples(self, {**self._fixed, **examples})
        self._leaf_classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))
        self._leaf_paths = {leaf for leaf in leaves if isinstance(leaf, str)}
        self._runner: MetaRunner | None = None
        self.running = False
        self.ints = 0
        self.replaced: dict[str, nn.Module] = {}
        self.writes: dict[fx.Node, Write] = {}
        self.overtaken: set[int] = set()
        self._present: set[int] = set()  # modules of the model, by identity
        self._ruled: set[int] = set()  # those with a rule
        self._held, self._made = Held(), Made()
        self._proxies: dict[str, fx.Proxy] = {}  # of the model's tensors, by name
        self._without_gradient = WithoutGradient(self, self.held_at)
        self.assigned: dict[str, fx.Proxy] = {}
        self.device_type = ""
        self._without_data = False  # where the model or its inputs are on the meta device

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Record the forward of `root` as a graph whose nodes have example values."""
        self._runner = MetaRunner(root, self._answers)
        self._held = Held(root)
        tensors = (*root.parameters(), *root.buffers(), *pytree.tree_leaves(self._examples))
        kinds = {tensor.device.type for tensor in tensors if isinstance(tensor, torch.Tensor)}
        self.device_type = kinds.pop() if len(kinds) == 1 else ""
        self._without_data = any(tensor.is_meta for tensor in tensors if isinstance(tensor, torch.Tensor))
        before = set(root.__dict__)
        load_rules()  # they are registered for torch's functions as these are now
        self._present = {id(part) for part in root.modules()}
        self._ruled = {id(part) for part in root.modules() if module_rule(part) is not None}  # may run the part
        try:
            with (
                torch.enable_grad(),
                layer_by_layer(),
                masks_taken_as_given(),
                own_functions_kept(self),
                parameters_of_distributions_unchecked(),
                variables_are_tensors(),
                scripts_open(),
                checks_recorded(self.conditions.require),
                examples_asked(),
                factories_seen(self),
                dtypes_seen(self),
                einops_open(ValueProxy),
                layers_stay(self),
                wrapped_functions_open(),
                builtins_called(root, {"int": self._int, "type": kind_of, "callable": is_callable}),
                calls_seen(
                    {
                        **WHILE_TRACED,
                        **SEQUENCES,
                        **grouped_products(),
                        **{function: self._recording(function) for function in own_functions()},
                    }
                ),
                assignments_seen(self),
            ):
                graph = super().trace(root, concrete_args)
        finally:
            for name in set(root.__dict__) - before:  # fx parks tensor constants on the user's module
                root.__dict__.pop(name)
        store_assigned(self, graph)
        self.conditions.refuse_overwritten()
        return graph

    def _recording(self, function: Any) -> Callable[[Seen], Seen]:
        """Record calls of a function that has a rule; it is called itself on the examples."""

        def made(original: Seen) -> Seen:
            def seen(*args: Any, **kwargs: Any) -> Any:
                if self.running or not holds_proxy((args, kwargs)):
                    return original(*args, **kwargs)
                return self.create_proxy("call_function", function, args, kwargs)

            return seen

        return made

    def _int(self, *args: Any, **kwargs: Any) -> Any:
        """What the model's own `int()` returns."""
        value: Any = args[0] if len(args) == 1 and isinstance(args[0], ValueProxy) else None
        if value is not None and isinstance(value.example, torch.Tensor) and value.example.numel() == 1:
            value = value.item()
        number = value is not None and isinstance(value.example, (int, float)) and not isinstance(value.example, bool)
        if not number or not self._ints_free:
            return int(*args, **kwargs)
        self.ints += 1
        return self.create_proxy("call_function", torch.sym_int, (value,), {})

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        """Inputs of the forward: proxies, and the fixed values behind a node that checks each of them."""
        inner = inspect.unwrap(root_fn)
        function, args = super().create_args_for_root(inner, is_module, concrete_args)
        if inner is not root_fn:  # the graph takes what the innermost takes, and records what its wrappers do
            function = called_by_name(root_fn, inner)
        for position, arg in enumerate(args):
            if isinstance(arg, fx.Proxy) and arg.node.target in self._fixed:
                name = str(arg.node.target)
                if WITHOUT.get(name, ...) is self._fixed[name]:  # what a call leaves out, the graph leaves out
                    arg.node.args = (self._fixed[name],)
                self.create_proxy("call_function", require_same, (arg, self._fixed[name], name), {})
                args[position] = self._fixed[name]
            elif isinstance(arg, fx.Proxy) and not isinstance(self._examples[str(arg.node.target)], _LEAVES):
                name = str(arg.node.target)
                if name.startswith("**") and not self._examples[name]:  # trainers give what a signature says it takes
                    self.graph.erase_node(arg.node)
                    args[position] = {}
                    continue
                self._require_form(arg, name)
                args[position] = opened(arg, self._examples[name])
        return function, args

    def _require_form(self, arg: fx.Proxy, name: str) -> None:
        """Record the check of an input that is a container; `WITHOUT` need not stand among further keyword inputs."""
        given: Any = self._examples[name]
        assumed: tuple[Any, ...] = ()
        if name.startswith("**") and len(besides(given, WITHOUT)) < len(given):
            given, assumed = besides(given, WITHOUT), (WITHOUT,)
        self.create_proxy("call_function", require_form, (arg, form_of(given), name.lstrip("*"), *assumed), {})

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy that carries an example value."""
        return ValueProxy(node, self)

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any | None = None,
        proxy_factory_fn: Callable[[fx.Node], fx.Proxy] | None = None,
    ) -> Any:
        """Record one operator and work out its example; a list that no input decides is one of Python's."""
        self._clock.progress(lambda: f"operator {len(self.graph.nodes)}")
        if kind == "call_method" and target in _SHAPE_CHANGES and isinstance(args[0], ValueProxy):
            args[0].node = self.create_proxy(kind, str(target)[:-1], args, kwargs).node  # under all names of the tensor
            return args[0]
        if target is torch._assert and isinstance(args[0], ValueProxy) and isinstance(args[0].example, torch.Tensor):
            message = args[1] if len(args) > 1 else kwargs.get("message")
            return self.conditions.require(args[0], True, f"AssertionError: {message}")
        if kind == "call_method" and target == "tolist" and args[0].example.is_meta:
            settled = self.conditions.known(args[0])
            return numbers_listed(args[0]) if settled is None else settled.tolist()
        target, args = tensor_of_array(kind, target, args)
        kind, target, args, kwargs = places_asked(self, kind, target, args, kwargs)
        by_values = not self._without_data and decided_by_values(kind, target, args, kwargs)
        if kind == "call_method" and target == "type" and len(args) > 1:
            target, args = cast_by_name(args, self.device_type)
        apart = kind.startswith("call") and not torch.is_grad_enabled()
        if apart:
            args, kwargs = self._without_gradient.arguments(kind, target, args, kwargs)
        result = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        node = result.node
        if kind == "placeholder":
            known = self._examples if str(target) in self._examples else self._fixed
            node.meta["value"] = to_meta(known[str(target)])
        elif kind == "call_module" and self._recorded(str(target)):
            inputs = pytree.tree_leaves(values_of((node.args, node.kwargs)))
            recorded = self._leaf_outputs[str(target)].pop(0)
            node.meta["value"] = pytree.tree_map(lambda v: v.of(inputs) if isinstance(v, InputView) else v, recorded)
            node.meta[FIXED] = node.meta["value"]
        elif target is require_admitted and not isinstance(args[0].example, torch.Tensor):
            # The example of the number stays what it is where shapes are worked out for other inputs.
            node.meta["value"] = node.meta[FIXED] = None
        elif kind not in ("output", "get_attr"):
            arguments = values_of((node.args, node.kwargs))
            write: Write | None = None
            try:
                if by_values:
                    node.meta["value"] = node.meta[FIXED] = self._answered(node)
                else:
                    node.meta["value"], write = run_watched(node, lambda: self._run(kind, target, *arguments))
            except BaseException as error:  # which the model may catch, to try another call
                self.graph.erase_node(node)
                asked = numbers_asked(self, kind, args, kwargs) if isinstance(error, ValuesError) else None
                if asked is None:
                    raise
                return self.create_proxy(kind, target, *asked)
            if target is getattr and isinstance(arguments[0][0], torch.device) and arguments[0][1] == "type":
                node.meta["value"] = self.device_type or node.meta["value"]  # the example is on meta, the model not
            if kind == "call_method" and target == "type" and isinstance(node.meta["value"], str):
                node.meta["value"] = node.meta[FIXED] = named_type(arguments[0][0], self.device_type)
            if write is not None:
                self.writes[node] = write
                self.overtaken |= storages_of(self._made.origin(str(write.target.target)))
        return self._without_gradient.answer(kind, result) if apart else result

    def _answered(self, node: fx.Node) -> Any:
        """What an operator answers whose form values decide, on the meta device."""
        settled = known_value(node.all_input_nodes[0], self) if node.target == "item" else None
        return to_meta(self._on_examples.of(node)) if settled is None else settled.item()

    def _recorded(self, path: str) -> bool:
        """Whether a leaf is not run: what has a rule is, since its shapes follow when it grows."""
        return bool(self._leaf_outputs.get(path)) and id(self.root.get_submodule(path)) not in self._ruled

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Make a node; fetched tensors, constants of the source among them, have their example at once."""
        if not self.graph.nodes:
            self.graph._graph_namespace.create_name("self", None)  # a submodule may be called so; the code has its own
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "get_attr":
            value = self._made.origin(str(target))
            node.meta["value"] = self.example_of(self.held_at(str(target)) if value is None else value)
        return node

    def create_arg(self, a: Any) -> Any:
        """As fx does; a tensor that the forward makes is kept as it is now, whatever the forward does to it later.

        Numbers of numpy's become Python's, and classes of Python's numbers dtypes. Dictionaries of a class of their
        own, and objects with fields, are made by their class.
        """
        if isinstance(a, fx.Proxy):
            return a.node
        if isinstance(a, type) and a in OF_PYTHON:
            return OF_PYTHON[a]
        if isinstance(a, dict) and type(a) not in (dict, immutable_dict):
            kind: Any = type(a)
            if is_dataclass(kind):
                named = {field.name: self.create_arg(getattr(a, field.name)) for field in fields(kind)}
                return self.create_node("call_function", kind, (), {k: v for k, v in named.items() if v is not None})
            if type(a) is OrderedDict:
                return self.create_node("call_function", OrderedDict, (self.create_arg(list(a.items())),), {})
            raise CaptureError(f"the forward passes on a {type(a).__name__}, a dictionary that a graph cannot make")
        if type(a) is not torch.Tensor or self.is_held(a) or a in self.tensor_attrs:
            return super().create_arg(pythonic(a))
        name = self._made.name_of(a)
        if not hasattr(self.root, name):
            setattr(self.root, name, self.constants[name])
        return self.create_node("get_attr", name, (), {})

    @property
    def constants(self) -> dict[str, torch.Tensor]:
        """Tensors that the forward makes itself, by the name under which the graph fetches them."""
        return self._made.constants

    def is_held(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a parameter or buffer of the model."""
        return self._held.name_of(tensor) is not None

    def held_at(self, path: str) -> Any:
        """What the model holds at a path; not what the graph reads there."""
        value: Any = self.root
        with self.aside():
            for part in path.split("."):
                value = getattr(value, part)
        return value

    def example_of(self, value: Any) -> Any:
        """The example of a tensor of the model's; those that share memory have examples that do."""
        with self.aside():  # it may be a tensor whose later uses are recorded, as it is written into
            return self._held.example_of(value)

    def _run(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        assert self._runner is not None
        try:
            with self.aside(), nothing_asked():
                return self._runner.run(kind, target, args, kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error).lower():
                raise
            name = target if isinstance(target, str) else getattr(target, "__name__", target)
            raise ValuesError(
                f"`{name}` needs the values of a tensor, not its shape alone; a graph has one path and one shape for "
                "all inputs of a size: use torch.where, or mark the submodule as a leaf"
            ) from error

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Fx has patched nn.Module: what runs on examples must not be recorded."""
        before, self.running = self.running, True
        try:
            yield
        finally:
            self.running = before

    def by_itself(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """What an operator returns, run on values and not recorded."""
        with self.aside(), nothing_asked(), torch.no_grad():
            return getattr(args[0], target)(*args[1:], **kwargs) if kind == "call_method" else target(*args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module stays one node: those of torch.nn, those with a rule, and those asked for."""
        if isinstance(m, self._leaf_classes) or module_qualified_name in self._leaf_paths:
            return True
        if is_parametrised(m):
            return False
        if id(m) in self._ruled:
            return True
        if expansion_of(type(m)) is not None:
            return False
        composite = any(True for _ in m.children())  # nn.TransformerEncoderLayer and its like are looked into
        return super().is_leaf_module(m, module_qualified_name) and not composite

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Expand composite layers of torch.nn into the operators that they are made of."""
        held = (*m._parameters.values(), *m._buffers.values())
        strange = id(m) not in self._present and all(tensor is None for tensor in held)
        if self.running or strange:  # no part of the model: an activation out of a library's table, a loss made here
            return forward(*args, **kwargs)
        if is_compiled(m):
            forward = m._orig_mod
        expand = expansion_of(type(m)) if id(m) not in self._ruled else None
        if any(isinstance(given, Packed) for given in (*args[:1], kwargs.get("input"))):
            return self._run_packed(m, forward, args, kwargs)
        leaf = isinstance(m, self._leaf_classes) or self.path_of_module(m) in self._leaf_paths
        if expand is None or leaf:
            return super().call_module(m, forward, args, kwargs)
        return super().call_module(m, lambda *a, **k: expand(m, *a, **k), args, kwargs)

    def _run_packed(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call with a packed sequence: of a recurrent layer as one on padded ones, else what is within."""
        path = self.path_of_module(m)
        layer = self.replaced.get(path) or layer_over(m)
        if layer is None:
            if not self.is_leaf_module(m, path):
                return super().call_module(m, forward, args, kwargs)
            raise CaptureError(f"`{path}` ({type(m).__name__}) takes a packed sequence, which a graph cannot hold")
        assert self._runner is not None
        if path not in self.replaced:
            self.replaced[path] = layer
            self._runner.replace(path, layer)

        def call(*args: Any, **kwargs: Any) -> Any:
            return super(ShapeTracer, self).call_module(m, forward, args, kwargs)

        return run_packed(call, *args, **kwargs)

    def call_added(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Record a call of a layer that the model does not have, below the module whose forward runs."""
        assert self._runner is not None
        within = next((f"{path}." for path, _ in reversed(self.module_stack.values()) if path), "")
        taken = {name for name, _ in self.root.named_modules()} | self.replaced.keys()
        path = next(p for p in (f"{within}{name}{'_' * (n > 0)}{n or ''}" for n in count()) if p not in taken)
        self.replaced[path] = module
        self._runner.replace(path, module)
        return self.create_proxy("call_module", path, args, {})

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Parameters and buffers become nodes, except within an example run."""
        return self.held(attr_val)

    def held(self, tensor: Any) -> Any:
        """The proxy of a tensor of the model's, except within an example run; anything else as it is."""
        name = None if self.running else self._held.name_of(tensor)
        if name is None:
            return tensor
        if name in self.assigned:
            return self.assigned[name]
        if name not in self._proxies:
            self._proxies[name] = self.create_proxy("get_attr", name, (), {})
        return self._proxies[name]

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterate over what the example holds."""
        items: Any = obj
        return iter([items[i] for i in range(len(items))])

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Resolve a condition by the example."""
        return bool(obj)
