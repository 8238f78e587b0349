"""Proxies that carry an example of their value, so that control flow on shapes resolves while a model is traced."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx

from graphgrow.capture.graphs.severed import DATA
from graphgrow.capture.graphs.writes import PLAIN, storages_of
from graphgrow.capture.model.frames import models_line
from graphgrow.capture.model.outputs import leaves_of
from graphgrow.capture.stand_ins.of_numpy import called_as_function, called_as_ufunc
from graphgrow.capture.stand_ins.parts import may_vary
from graphgrow.errors import CaptureError
from graphgrow.ir.meta import FIXED, is_number
from graphgrow.layers import require_decision, require_dtypes, set_item

_CONSTANT_ATTRIBUTES = {"ndim", "is_cuda", "layout", "is_meta", "is_sparse", "is_quantized", "names"}
_OWN_ATTRIBUTES = {"tracer", "node", "_node", "root", "attr"}
_LEN = builtins.len  # which is another while a forward runs


class ValueProxy(fx.Proxy):
    """A proxy that knows an example of its value."""

    @property
    def example(self) -> Any:
        """The example value; tensors are on the meta device."""
        return self.node.meta["value"]

    def __getattr__(self, name: str) -> Any:
        if not hasattr(type(self.example), name) and not hasattr(self.example, name):
            raise AttributeError(f"a {type(self.example).__name__} has no attribute {name!r}")
        if name in _CONSTANT_ATTRIBUTES and isinstance(self.example, torch.Tensor):
            return getattr(self.example, name) if name != "is_meta" else False
        if name == "data" and isinstance(self.example, torch.Tensor):
            named = self.tracer.create_proxy("call_method", "detach", (self,), {})
            named.node.meta[DATA] = True
            return named
        if name == "requires_grad" and self.node.op == "get_attr":
            tracer: Any = self.tracer  # fx types it as any tracer
            return tracer.held_at(str(self.node.target)).requires_grad
        if name in ("shape", "dtype", "device", "T", "mT", "mH") and isinstance(self.example, torch.Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return ValueAttribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "data" and isinstance(value, ValueProxy) and _is_one_tensor(self.example, value.example):
            return  # the end of `x.data += 1`, which wrote into the memory of x already
        if name not in _OWN_ATTRIBUTES:
            raise CaptureError(
                f"`.{name}` of the value `{self.node.name}` is set, which a graph cannot show; write into it by copy_()"
            )
        super().__setattr__(name, value)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(self.example, torch.Tensor):
            raise CaptureError(f"an item of `{self.node.name}`, a {type(self.example).__name__}, is set")
        self.tracer.create_proxy("call_function", set_item, (self, index, value), {})

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return called_as_ufunc(ufunc, method, args, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return called_as_function(function, args, kwargs)

    def __len__(self) -> int:
        if isinstance(self.example, torch.Tensor) and self.example.dim():
            rows: Any = self.shape
            return int(rows[0])
        if may_vary(self.node):
            number: Any = self.tracer.create_proxy("call_function", _LEN, (self,), {})
            return int(number)
        return len(self.example)

    def __iter__(self) -> Iterator[Any]:
        items: Any = self  # fx gives proxies their operators at run time
        return iter([items[i] for i in range(len(self))])

    def __add__(self, other: Any) -> Any:
        return (*self, *other) if _are_sizes(self, other) else self._sum(self, other)

    def __radd__(self, other: Any) -> Any:
        return (*other, *self) if _are_sizes(self, other) else self._sum(other, self)

    def _sum(self, *terms: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.add, terms, {})

    def __bool__(self) -> bool:
        return bool(self._decided("a condition"))

    def __int__(self) -> int:
        return int(self._decided("int()"))

    def __index__(self) -> int:
        return int(self._decided("an index"))

    def __float__(self) -> float:
        return float(self._decided("float()"))

    def __round__(self, digits: int | None = None) -> Any:
        if isinstance(self.example, torch.Tensor):
            raise TypeError("type Tensor doesn't define __round__ method")
        return self.tracer.create_proxy("call_function", round, (self,) if digits is None else (self, digits), {})

    def __hash__(self) -> int:
        """Of a dtype its own, by which it is looked up in sets and tables: what is found there depends on it."""
        return hash(self._decided("a hash")) if isinstance(self.example, torch.dtype) else super().__hash__()

    def __str__(self) -> str:
        return str(self._decided("str()")) if isinstance(self.example, torch.dtype) else super().__str__()

    def __format__(self, spec: str) -> str:
        """As in messages; what they say is decided by nothing."""
        return format(self.example if isinstance(self.example, torch.dtype) else super().__str__(), spec)

    def _decided(self, use: str) -> Any:
        """The example, on which the path of the model depends from here on: a node checks it in every call."""
        example = self.example
        tracer: Any = self.tracer  # fx types it as any tracer
        if isinstance(example, torch.Tensor):
            return tracer.conditions.decide(self, use)
        read, numbers = _read_for(self.node)
        if numbers and not tracer.conditions.settled(numbers):
            return tracer.conditions.decide(self, use)
        check = _CHECKS.get(read) if isinstance(example, (bool, int, float, str, torch.dtype)) else None
        if check is not None and not any(user.target is check for user in self.node.users):
            path, _, number = models_line().rpartition(":")
            self.tracer.create_proxy("call_function", check, (self, example, f"{Path(path).name}:{number}"), {})
        return example


def reads_values(value: fx.Proxy) -> bool:
    """Whether a value is a tensor, or computed from numbers that are read off one."""
    return isinstance(value.node.meta["value"], torch.Tensor) or bool(_read_for(value.node)[1])


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


_PLAIN = builtins.isinstance, builtins.len


def _are_sizes(*values: Any) -> bool:
    """Whether sequences are joined, item by item: `x.size()[:-1] + (heads, width)`, each size a node of its own."""
    held = [value.example if isinstance(value, ValueProxy) else value for value in values]
    return all(type(item) in (tuple, torch.Size) for item in held)


_CHECKS: dict[str, Callable[..., None]] = {"sizes": require_decision, "dtypes": require_dtypes}


def _read_for(node: fx.Node) -> tuple[str, list[fx.Node]]:
    """What of its tensors a number or truth is computed from: "sizes", else "dtypes", else nothing; ranks never vary.

    Then the nodes that read numbers off values.
    """
    pending, seen, found, numbers = [node], set[fx.Node](), set[str](), list[fx.Node]()
    while pending:
        item = pending.pop()
        if item in seen:
            continue
        seen.add(item)
        if item.target == "item" and FIXED in item.meta:
            numbers.append(item)
        elif item.target in ("size", "numel", _LEN) or (item.target is getattr and item.args[1] == "shape"):
            found.add("sizes")
        elif (item.target is getattr and item.args[1] == "dtype") or (item.target == "type" and len(item.args) == 1):
            found.add("dtypes")
        before = ((used, used.meta["value"]) for used in item.all_input_nodes)
        pending += [used for used, value in before if not isinstance(value, torch.Tensor) or is_number(value)]
    return next((read for read in _CHECKS if read in found), ""), numbers


def _augmented(inplace: Any) -> Callable[[ValueProxy, Any], Any]:
    """`x += y`, which fx's own proxies take for `x = x + y`: a tensor is changed under all its names."""

    def method(self: ValueProxy, other: Any) -> Any:
        target = inplace if isinstance(self.example, torch.Tensor) else PLAIN[inplace]
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return method


for _operator in PLAIN:
    setattr(ValueProxy, f"__{_operator.__name__}__", _augmented(_operator))


def opened(proxy: Any, example: Any) -> Any:
    """An input that is a container, as the forward gets it: one of its class, of a proxy for each tensor in it.

    Raises:
        CaptureError: if it is of a class whose parts are not known.
    """
    if isinstance(example, torch.Tensor):
        return proxy
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves_of(example)):
        return example
    if dataclasses.is_dataclass(example):
        twin: Any = copy.copy(example)
        for field in dataclasses.fields(example):
            item = opened(getattr(proxy, field.name), getattr(example, field.name))
            if isinstance(twin, dict):
                setattr(twin, field.name, item)
            else:
                object.__setattr__(twin, field.name, item)  # it may be frozen
        return twin
    if isinstance(example, tuple) and hasattr(example, "_fields"):
        return type(example)(*(opened(proxy[i], item) for i, item in enumerate(example)))
    if type(example) in (list, tuple):
        return type(example)(opened(proxy[i], item) for i, item in enumerate(example))
    if type(example) in (dict, OrderedDict):
        return type(example)((key, opened(proxy[key], item)) for key, item in example.items())
    raise CaptureError(
        f"an input is a {type(example).__name__}; wanted tensors in lists, tuples, dicts and dataclasses"
    )


@contextmanager
def examples_asked() -> Iterator[None]:
    """Let the forward's own `isinstance(x, torch.Tensor)` be answered by what a proxy stands for, `len(x)` by its rows.

    In Python alone: were it the proxy's class that says so, torch's C++ would take it for a tensor, too, and what
    `__len__` returns must be a number of Python's, which would be the example's.
    """
    original, counted, kinds = builtins.isinstance, builtins.len, (ValueProxy, ValueAttribute)

    def asked(value: Any, kind: Any) -> bool:
        return original(value, kind) or (type(value) in kinds and original(_stood_for(value), kind))

    def rows(value: Any) -> Any:
        if type(value) in kinds and original(value.example, torch.Tensor) and value.example.dim():
            return value.shape[0]
        return counted(value)

    builtins.isinstance, builtins.len = asked, rows
    try:
        yield
    finally:
        builtins.isinstance, builtins.len = original, counted


@contextmanager
def nothing_asked() -> Iterator[None]:
    """While inside `examples_asked`, the plain functions: an operator that is run on examples holds no proxy.

    Those of torch's that are written in Python ask hundreds of times.
    """
    before = builtins.isinstance, builtins.len
    builtins.isinstance, builtins.len = _PLAIN
    try:
        yield
    finally:
        builtins.isinstance, builtins.len = before


def kind_of(*args: Any, **kwargs: Any) -> Any:
    """What the forward's own `type(x)` returns: the class of what a proxy stands for, of anything else its own."""
    proxy = len(args) == 1 and type(args[0]) in (ValueProxy, ValueAttribute)
    return type(_stood_for(args[0])) if proxy else type(*args, **kwargs)


def is_callable(*args: Any, **kwargs: Any) -> bool:
    """What the forward's own `callable(x)` returns: of a proxy, whether what it stands for can be called."""
    proxy = len(args) == 1 and type(args[0]) in (ValueProxy, ValueAttribute)
    return callable(_stood_for(args[0])) if proxy else callable(*args, **kwargs)


def _is_one_tensor(a: Any, b: Any) -> bool:
    """Whether two examples are names of one memory, laid out alike."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or storages_of(a) != storages_of(b):
        return False
    geometry = [(t.shape, t.stride(), t.storage_offset(), t.dtype) for t in (a, b)]
    return geometry[0] == geometry[1]


def _stood_for(proxy: ValueProxy) -> Any:
    """A tensor of the model's itself, which may be a parameter; of any other value the example."""
    tracer: Any = proxy.tracer  # fx types it as any tracer
    return tracer.held_at(str(proxy.node.target)) if proxy.node.op == "get_attr" else proxy.example


def holds_proxy(arguments: Any) -> bool:
    """Whether a proxy stands anywhere within nested arguments."""
    if isinstance(arguments, fx.Proxy):
        return True
    if isinstance(arguments, (tuple, list)):
        return any(map(holds_proxy, arguments))
    if isinstance(arguments, slice):
        return any(map(holds_proxy, (arguments.start, arguments.stop, arguments.step)))
    return isinstance(arguments, dict) and any(map(holds_proxy, arguments.values()))
