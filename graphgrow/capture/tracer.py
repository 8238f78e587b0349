"""An fx tracer whose proxies carry example values on the meta device.

Control flow on shapes, `len`, iteration and assertions resolves by the example; sizes that go into operators
stay nodes of the graph, so that the batch size stays free.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from graphgrow.capture.expansions import expansion_of
from graphgrow.errors import CaptureError
from graphgrow.ir.meta import FIXED, MetaRunner, to_meta, values_of
from graphgrow.layers import require_same
from graphgrow.ops.registry import module_rule

_CONSTANT_ATTRIBUTES = {"dtype", "ndim", "is_cuda", "layout", "is_meta", "is_sparse", "is_quantized", "names"}


class ValueProxy(fx.Proxy):
    """A proxy that knows an example of its value."""

    @property
    def example(self) -> Any:
        """The example value; tensors are on the meta device."""
        return self.node.meta["value"]

    def __getattr__(self, name: str) -> Any:
        if name in _CONSTANT_ATTRIBUTES and isinstance(self.example, torch.Tensor):
            return getattr(self.example, name) if name != "is_meta" else False
        if name in ("shape", "device", "T", "mT") and isinstance(self.example, torch.Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return ValueAttribute(self, name)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __len__(self) -> int:
        return len(self._known("len()"))

    def __iter__(self) -> Iterator[Any]:
        items: Any = self  # fx gives proxies their operators at run time
        return iter([items[i] for i in range(len(self._known("iteration")))])

    def __bool__(self) -> bool:
        return bool(self._known("a condition", data=True))

    def __int__(self) -> int:
        return int(self._known("int()", data=True))

    def __index__(self) -> int:
        return int(self._known("an index", data=True))

    def __float__(self) -> float:
        return float(self._known("float()", data=True))

    def _known(self, use: str, data: bool = False) -> Any:
        if data and isinstance(self.example, torch.Tensor):
            raise CaptureError(
                f"{use} depends on the values of the tensor `{self.node.name}`, not on its shape; "
                "a graph has one path for all inputs: use torch.where, or mark the submodule as a leaf"
            )
        return self.example


class ValueAttribute(fx.proxy.Attribute, ValueProxy):
    """An attribute of a proxy that becomes a node only when it is used as a value."""

    def __getattr__(self, name: str) -> Any:
        return ValueProxy.__getattr__(self, name)

    @property
    def node(self) -> fx.Node:
        """The node that reads the attribute, made when first asked for."""
        if self._node is None:
            self._node = self.tracer.create_proxy("call_function", getattr, (self.root, self.attr), {}).node
        return self._node

    @node.setter
    def node(self, value: fx.Node) -> None:
        self._node = value


class _Factories(TorchFunctionMode):
    """Records functions that make tensors from computed sizes (torch.arange(n), torch.zeros(b, 1))."""

    def __init__(self, tracer: ShapeTracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _holds_proxy((args, kwargs)) and not any(issubclass(t, fx.Proxy) for t in types):
            return self._tracer.create_proxy("call_function", func, args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def _wrapped_functions_open() -> Iterator[None]:
    """Trace into functions that a library marked with torch.fx.wrap, whose bodies hold axes that could grow.

    They are marked because plain fx stumbles over `len` and shapes in them; proxies with examples do not.
    """
    marked = fx._symbolic_trace._wrapped_fns_to_patch
    before = dict(marked)
    marked.clear()
    try:
        yield
    finally:
        marked.update(before)


def _holds_proxy(arguments: Any) -> bool:
    if isinstance(arguments, fx.Proxy):
        return True
    if isinstance(arguments, (tuple, list)):
        return any(map(_holds_proxy, arguments))
    return isinstance(arguments, dict) and any(map(_holds_proxy, arguments.values()))


class ShapeTracer(fx.Tracer):
    """Traces one mode of a module with example inputs.

    Args:
        examples: by name of the forward's parameter, the example value; a parameter without one keeps its default.
        leaves: module classes, or module paths, that are not looked into.
        fixed: by name of the forward's parameter, a value that the graph is specialised to (None, a flag, a string);
            the graph refuses to be called with another.
        leaf_outputs: by path, what those leaves returned on the example inputs, one item a call (on meta).
    """

    def __init__(
        self,
        examples: dict[str, Any],
        leaves: Sequence[type[nn.Module] | str] = (),
        leaf_outputs: dict[str, list[Any]] | None = None,
        fixed: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(param_shapes_constant=False)
        self._fixed = fixed or {}
        self._leaf_outputs = {path: list(outputs) for path, outputs in (leaf_outputs or {}).items()}
        self.proxy_buffer_attributes = True
        self._examples = examples
        self._leaf_classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))
        self._leaf_paths = {leaf for leaf in leaves if isinstance(leaf, str)}
        self._runner: MetaRunner | None = None
        self._running = False
        self.constants: dict[str, torch.Tensor] = {}

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Record the forward of `root` as a graph whose nodes have example values."""
        self._runner = MetaRunner(root)
        before = set(root.__dict__)
        try:
            with _Factories(self), _wrapped_functions_open():
                return super().trace(root, concrete_args)
        finally:
            for name in set(root.__dict__) - before:  # fx parks tensor constants on the user's module
                constant = root.__dict__.pop(name)
                if isinstance(constant, torch.Tensor):
                    self.constants[name] = constant

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        """Inputs of the forward: proxies, and the fixed values behind a node that checks each of them."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        for position, arg in enumerate(args):
            if isinstance(arg, fx.Proxy) and arg.node.target in self._fixed:
                name = str(arg.node.target)
                self.create_proxy("call_function", require_same, (arg, self._fixed[name], name), {})
                args[position] = self._fixed[name]
        return function, args

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
    ) -> fx.Proxy:
        """Record one operator and work out the example of what it returns."""
        result = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        node = result.node
        if kind == "placeholder":
            known = self._examples if str(target) in self._examples else self._fixed
            node.meta["value"] = to_meta(known[str(target)])
        elif kind == "call_module" and self._leaf_outputs.get(str(target)):
            node.meta[FIXED] = node.meta["value"] = self._leaf_outputs[str(target)].pop(0)
        elif kind not in ("output", "get_attr"):
            node.meta["value"] = self._example(kind, target, *values_of((node.args, node.kwargs)))
        return result

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Make a node; fetched tensors, constants of the source among them, have their example at once."""
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "get_attr":
            node.meta["value"] = self._example(kind, target, (), {})
        return node

    def _example(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        assert self._runner is not None
        self._running = True  # fx has patched nn.Module.__call__; an example run must not be recorded
        try:
            return self._runner.run(kind, target, args, kwargs)
        finally:
            self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module stays one node: those of torch.nn, those with a rule, and those asked for."""
        if isinstance(m, self._leaf_classes) or module_qualified_name in self._leaf_paths:
            return True
        if expansion_of(type(m)) is not None:
            return False
        if module_rule(type(m)) is not None:
            return True
        composite = any(True for _ in m.children())  # nn.TransformerEncoderLayer and its like are looked into
        return super().is_leaf_module(m, module_qualified_name) and not composite

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Expand composite layers of torch.nn into the operators that they are made of."""
        if self._running:
            return forward(*args, **kwargs)
        expand = expansion_of(type(m))
        leaf = isinstance(m, self._leaf_classes) or self.path_of_module(m) in self._leaf_paths
        if expand is None or leaf:
            return super().call_module(m, forward, args, kwargs)
        return super().call_module(m, lambda *a, **k: expand(m, *a, **k), args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Parameters and buffers become nodes, except within an example run."""
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterate over what the example holds."""
        items: Any = obj
        return iter([items[i] for i in range(len(items))])

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Resolve a condition by the example."""
        return bool(obj)
