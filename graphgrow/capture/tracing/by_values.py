"""Operators whose answer has a form that the values of tensors decide: how many entries are chosen, which number it is.

Their example is what they answer on the example inputs. In the graph they are asked in every call, so that it holds for
all inputs, as long as nothing else is decided by them.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphgrow.capture.stand_ins.proxies import ValueProxy
from graphgrow.capture.tracing.known import Fetching, fetched
from graphgrow.errors import CaptureError
from graphgrow.layers import CHECKS, set_item

_CHOSEN = {
    torch.nonzero, "nonzero", torch.bincount, "bincount", torch.unique, "unique", torch.unique_consecutive,
    "unique_consecutive",
}  # fmt: skip
_REPEATED = {torch.repeat_interleave, "repeat_interleave"}
_WHERE = {torch.where: True, torch.argwhere: False, "argwhere": False}
"""Other names of it, and whether they answer the numbers of each axis by themselves."""

_MASKED = {torch.masked_select, "masked_select"}


_MOST = 256  # numbers of one tensor that are nodes


class ValuesError(CaptureError):
    """An operator that cannot be run on shapes alone."""


class Holder(Fetching, Protocol):
    """What a tracer offers here, besides.

    Attributes:
        graph: as far as it is recorded.
        root: the model.
        replaced: by path, the layers that the graph calls in the place of the model's.
    """

    graph: fx.Graph
    root: nn.Module
    replaced: dict[str, nn.Module]

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record one operator."""
        ...


def decided_by_values(kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether values decide the form of what an operator answers."""
    if not kind.startswith("call_"):
        return False
    if kind == "call_method" and target == "item":
        return bool(args[0].example.is_meta)
    if target in _REPEATED:
        return len(args) == 1 and not kwargs
    return target in _CHOSEN


def places_asked(
    tracer: Holder, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """The call that asks for places where masks are given: `x[mask]` is `x[mask.nonzero()]`, as is `where(mask)`.

    So it is where rows are repeated as often as a tensor says.
    """
    if kind not in ("call_function", "call_method"):
        return kind, target, args, kwargs
    if target in _REPEATED:
        return _rows_asked(tracer, kind, target, args, kwargs)
    if target in _WHERE and len(args) == 1 and not kwargs and args[0].example.dim():
        return "call_function", torch.nonzero, args, {"as_tuple": True} if _WHERE[target] else {}
    if target is set_item:
        return _written_asked(tracer, kind, target, args, kwargs)
    if target in _MASKED and len(args) == 2 and args[0].example.shape == args[1].example.shape:
        kind, target = "call_function", operator.getitem
    if target is not operator.getitem or len(args) != 2:
        return kind, target, args, kwargs
    return kind, target, (args[0], _index_asked(tracer, args[1])), kwargs


def _index_asked(tracer: Holder, given: Any) -> Any:
    """An index with the places that its masks choose."""
    items = given if isinstance(given, tuple) else (given,)
    if not any(map(_is_mask, items)):
        return given
    index: list[Any] = []
    for item in items:
        if _is_mask(item):
            places = tracer.create_proxy("call_function", torch.nonzero, (item,), {"as_tuple": True})
            index += [places[i] for i in range(item.example.dim())]
        else:
            index.append(item)
    return index[0] if len(index) == 1 else tuple(index)


def _written_asked(
    tracer: Holder, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """`x[mask] = value` as torch carries it out: one number is filled in, others are written at the places chosen."""
    written, given, value = args
    items = given if isinstance(given, tuple) else (given,)
    masks = [item for item in items if _is_mask(item)]
    in_front = (isinstance(item, slice) and item.start is item.stop is item.step is None for item in items[:-1])
    if len(masks) == 1 and items[-1] is masks[0] and all(in_front) and _fills(written.example.dtype, value):
        behind = written.example.dim() - len(items) + 1 - masks[0].example.dim()
        mask = masks[0][(..., *[None] * behind)] if behind else masks[0]
        return "call_method", "masked_fill_", (written, mask, value), {}
    return kind, target, (written, _index_asked(tracer, given), value), kwargs


def _rows_asked(
    tracer: Holder, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """`repeat_interleave` by a tensor of one axis as torch carries it out: rows looked up."""
    given = dict(zip(("input", "repeats", "dim"), args, strict=False)) | kwargs
    rows, repeats = given["input"], given.get("repeats")
    if not isinstance(repeats, ValueProxy):
        return kind, target, args, kwargs
    example = repeats.example
    if not isinstance(example, torch.Tensor) or not example.dim():
        return kind, target, args, kwargs
    dim = given.get("dim")
    if dim is None:
        rows, dim = tracer.create_proxy("call_method", "flatten", (rows,), {}), 0
    if example.shape == (1,):
        repeats = repeats.expand(rows.shape[dim])
    counted = {"output_size": kwargs["output_size"]} if "output_size" in kwargs else {}
    places = tracer.create_proxy("call_function", torch.repeat_interleave, (repeats,), counted)
    return "call_method", "index_select", (rows, dim, places), {}


def _fills(dtype: torch.dtype, value: Any) -> bool:
    """Whether a value is one number that tensors of a dtype are filled with as it is written into them."""
    number = value.example if isinstance(value, ValueProxy) else value
    if isinstance(number, torch.Tensor) and number.dim():
        return False
    kind = number.dtype if isinstance(number, torch.Tensor) else torch.tensor(number).dtype
    return torch.can_cast(kind, dtype) and (dtype is not torch.bool or kind is torch.bool)


def numbers_asked(
    tracer: Holder, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments with the number of each integer tensor without axes in its place; None where there is none.

    It is what torch does by itself where an operator takes sizes, places and counts: `x[:, :n]`, `torch.arange(n)`. The
    number is known where the forward has made the tensor of numbers, as `torch.IntTensor([8])[0]`.
    """
    found: list[Any] = []

    def asked(item: Any) -> Any:
        if not _is_integer(item):
            return item
        known = isinstance(item, torch.Tensor)
        found.append(item.item() if known else tracer.create_proxy("call_method", "item", (item,), {}))
        return found[-1]

    kept = args[:1] if kind == "call_method" else ()  # the tensor whose method it is
    given = fx.node.map_aggregate((args[len(kept) :], kwargs), asked)
    return ((*kept, *given[0]), dict(given[1])) if found else None


def numbers_listed(tensor: Any) -> Any:
    """What `tolist()` returns, each number asked in every call; there are as many as on the example.

    Raises:
        ValuesError: if there are more than a graph can hold, or none is known.
    """
    if tensor.example.numel() > _MOST:
        raise ValuesError(f"`tolist` of {tensor.example.numel()} numbers: a graph holds up to {_MOST} one by one")
    return [numbers_listed(tensor[i]) for i in range(len(tensor))] if tensor.example.dim() else tensor.item()


def _is_integer(item: Any) -> bool:
    example = item.example if isinstance(item, ValueProxy) else item
    kind = example.dtype if isinstance(example, torch.Tensor) and not example.dim() else torch.bool
    return not (kind.is_floating_point or kind.is_complex or kind is torch.bool)


def _is_mask(item: Any) -> bool:
    example = item.example if isinstance(item, ValueProxy) else None
    return isinstance(example, torch.Tensor) and example.dtype is torch.bool and example.dim() > 0


class OnExamples:
    """Runs a graph on the example inputs while it is recorded, as far as it is asked to.

    Args:
        tracer: that records it.
        examples: by name of the placeholder, its value.
    """

    def __init__(self, tracer: Holder, examples: Mapping[str, Any]) -> None:
        self._tracer, self._examples = tracer, examples
        self._values: dict[fx.Node, Any] = {}

    def of(self, node: fx.Node) -> Any:
        """What a node answers; everything in front of it is run once, in its order."""
        with torch.random.fork_rng(devices=[]):
            for item in self._tracer.graph.nodes:
                if item not in self._values:
                    self._values[item] = self._run(item)
                if item is node:
                    break
        return self._values[node]

    def _run(self, node: fx.Node) -> Any:
        name = str(node.target)
        if node.op == "placeholder":
            example = self._examples[name]
            return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, example)
        if node.op == "get_attr":
            return fetched(name, self._tracer)
        if node.target in CHECKS:  # on a path that is looked into, the example may be what the model refuses
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda used: self._values[used])
        if node.op == "call_module":
            layer = self._tracer.replaced.get(name) or self._tracer.root.get_submodule(name)
            return self._tracer.by_itself("call_function", layer, args, kwargs)
        return self._tracer.by_itself(node.op, node.target, args, kwargs)
