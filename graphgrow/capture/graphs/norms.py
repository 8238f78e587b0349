"""RMS norms that are spelled out as operators, raised to a layer, so that the axis that they norm over can grow.

What language models write is `w * (x.float() * rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)`, with
the cast in front of the weight or behind it, and with `1 + w` for `w` in some.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphgrow.capture.graphs.modes import prune
from graphgrow.layers import RootMeanSquareNorm

Dtypes = Sequence[Mapping[fx.Node, torch.dtype]]

_CASTS = {"to", "float", "type", "type_as", "half", "bfloat16"}
_PRODUCTS = {operator.mul, torch.mul, "mul"}
_SUMS = {operator.add, torch.add, "add"}
_POWERS = {torch.pow, operator.pow, "pow"}


@dataclass(frozen=True)
class _Norm:
    """A norm that was found: what it reads, what it puts out, its weight, and its options."""

    input: fx.Node
    result: fx.Node
    weight: fx.Node | None
    eps: float
    offset: float
    upcast: bool
    cast_last: bool
    stays_wide: bool


def raise_norms(module: fx.GraphModule, dtypes: Dtypes | None = None) -> None:
    """Put layers in the place of spelled-out RMS norms, in place.

    A norm whose weight is called otherwise than `weight`, or has another owner than the norm alone, stays as it is.

    Args:
        module: whose nodes have example values.
        dtypes: in each dtype that the graph admits, the dtypes of its values. The cast back to the input's is then one
            that gives that in each of them; without them, one that names the dtype of the input.
    """
    found = [norm for node in module.graph.nodes if (norm := _norm_at(node, dtypes)) is not None]
    for norm in found:
        path = _place(module, norm)
        if path is None:
            continue
        with module.graph.inserting_before(norm.result):
            layer = module.graph.call_module(path, (norm.input,))
        layer.meta = dict(norm.result.meta)
        layer.stack_trace = norm.result.stack_trace
        norm.result.replace_all_uses_with(layer)
    if found:
        prune(module.graph, module)
        module.recompile()


def _norm_at(node: fx.Node, dtypes: Dtypes | None) -> _Norm | None:
    """The norm whose reciprocal root is this node."""
    inside = _radicand(node)
    parts = _with_number(inside, _SUMS)
    if parts is None:
        return None
    squares, eps = _mean_of(parts[0]), parts[1]
    base = None if squares is None else _squared(squares)
    scaled = _only_user(node, _PRODUCTS)
    if base is None or scaled is None:
        return None
    source = _uncast(base)
    factors = [arg for arg in scaled.args if arg is not node]
    if len(factors) != 1 or not isinstance(factors[0], fx.Node) or _uncast(factors[0]) is not source:
        return None
    return _finished(scaled, source, eps, base is not source, dtypes)


def _finished(scaled: fx.Node, source: fx.Node, eps: float, upcast: bool, dtypes: Dtypes | None) -> _Norm | None:
    """The norm from its scaled value on: a cast back, and the weight, in whichever order."""
    cast = _cast_back(scaled, source, dtypes)
    weighted = _only_user(cast, _PRODUCTS)
    weight, offset = _weight_of(weighted, cast)
    if weighted is None or weight is None:
        return _checked(_Norm(source, cast, None, eps, 0.0, upcast, True, upcast and cast is scaled), dtypes)
    result = _cast_back(weighted, source, dtypes)
    stays_wide = upcast and cast is scaled and result is weighted
    return _checked(_Norm(source, result, weight, eps, offset, upcast, cast is scaled, stays_wide), dtypes)


def _checked(norm: _Norm, dtypes: Dtypes | None) -> _Norm | None:
    """The norm if what it reads and puts out, and its weight, are of fitting shapes and types."""
    before, after = norm.input.meta.get("value"), norm.result.meta.get("value")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return None
    pairs = [(before.dtype, after.dtype), *((known[norm.input], known[norm.result]) for known in dtypes or ())]
    if after.shape != before.shape or any(result != _result(norm, given) for given, result in pairs):
        return None
    if _wide(norm, before.dtype) == torch.float64:
        return None  # float64 models are rounded to float32 on the way, which the layer does not do
    if norm.weight is not None and tuple(norm.weight.meta["value"].shape) != (before.shape[-1],):
        return None
    return norm


def _wide(norm: _Norm, given: torch.dtype) -> torch.dtype:
    """In which dtype the layer computes."""
    return torch.promote_types(given, torch.float32) if norm.upcast else given


def _result(norm: _Norm, given: torch.dtype) -> torch.dtype:
    """The dtype of the layer's result."""
    return _wide(norm, given) if norm.stays_wide else given


def _place(module: fx.GraphModule, norm: _Norm) -> str | None:
    """The path under which a norm stands as a layer, which is put there; None where its weight is not its own."""
    options: dict[str, Any] = {
        "eps": norm.eps, "offset": norm.offset, "upcast": norm.upcast, "cast_last": norm.cast_last,
        "stays_wide": norm.stays_wide,
    }  # fmt: skip
    if norm.weight is None:
        path = f"{norm.result.name}_norm"
        module.add_submodule(path, RootMeanSquareNorm(None, **options))
        return path
    path, _, field = str(norm.weight.target).rpartition(".")
    owner = module.get_submodule(path)
    if isinstance(owner, RootMeanSquareNorm):
        same = all(getattr(owner, name) == value for name, value in options.items())
        return path if same else None
    own = [*owner.named_parameters(), *owner.named_buffers()]
    if not path or field != "weight" or [name for name, _ in own] != ["weight"] or any(True for _ in owner.children()):
        return None
    weight = owner.weight
    if not isinstance(weight, nn.Parameter):
        return None
    layer = RootMeanSquareNorm(None, **options)
    layer.width, layer.weight = len(weight), weight
    layer.training = owner.training
    module.set_submodule(path, layer)
    return path


# -- what nodes are ------------------------------------------------------------------------------------------------


def _called(node: Any, targets: set[Any]) -> bool:
    return isinstance(node, fx.Node) and node.op in ("call_function", "call_method") and node.target in targets


def _radicand(node: fx.Node) -> Any:
    """X of 1 / sqrt(x)."""
    if _called(node, {torch.rsqrt, "rsqrt"}):
        return node.args[0]
    return node.args[0] if _called(node, _POWERS) and node.args[1] == -0.5 else None


def _with_number(node: Any, targets: set[Any]) -> tuple[fx.Node, float] | None:
    """The tensor and the number of an operator on both."""
    if not _called(node, targets) or len(node.args) != 2 or node.kwargs:
        return None
    tensors = [arg for arg in node.args if isinstance(arg, fx.Node)]
    numbers = [arg for arg in node.args if isinstance(arg, (int, float))]
    if len(tensors) != 1 or len(numbers) != 1:
        return None
    return tensors[0], numbers[0] if isinstance(numbers[0], float) else float(numbers[0])


def _mean_of(node: fx.Node) -> fx.Node | None:
    """X of x.mean(-1, keepdim=True)."""
    if not _called(node, {torch.mean, "mean"}):
        return None
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keepdim = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    source = node.args[0]
    last = dim == -1 or (isinstance(dim, (tuple, list)) and list(dim) == [-1])
    return source if last and keepdim is True and isinstance(source, fx.Node) and "dtype" not in node.kwargs else None


def _squared(node: fx.Node) -> fx.Node | None:
    """X of x^2."""
    if _called(node, _POWERS) and node.args[1] == 2 and isinstance(node.args[0], fx.Node):
        return node.args[0]
    if _called(node, _PRODUCTS) and len(node.args) == 2 and node.args[0] is node.args[1]:
        return node.args[0] if isinstance(node.args[0], fx.Node) else None
    return node.args[0] if _called(node, {torch.square, "square"}) and isinstance(node.args[0], fx.Node) else None


def _is_cast(node: fx.Node) -> bool:
    if node.op != "call_method" or node.target not in _CASTS or not isinstance(node.args[0], fx.Node):
        return False
    before, after = node.args[0].meta.get("value"), node.meta.get("value")
    return isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) and before.shape == after.shape


def _uncast(node: fx.Node) -> fx.Node:
    while _is_cast(node):
        node = node.args[0]  # type: ignore[assignment]  # a cast of a node
    return node


def _only_user(node: fx.Node, targets: set[Any]) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and _called(users[0], targets) else None


def _cast_back(node: fx.Node, source: fx.Node, dtypes: Dtypes | None) -> fx.Node:
    """What alone reads a value and casts it to the dtype of the source; the value itself where nothing does."""
    while len(node.users) == 1 and _is_cast(cast := next(iter(node.users))):
        if not _is_back(cast, source, dtypes):
            break
        node = cast
    return node


def _is_back(cast: fx.Node, source: fx.Node, dtypes: Dtypes | None) -> bool:
    if dtypes is None:
        return _names_dtype_of(cast, source)
    return all(known[cast] == known[source] for known in dtypes)


def _names_dtype_of(cast: fx.Node, source: fx.Node) -> bool:
    """Whether a cast is `.to(source.dtype)`, `.to(source)` or `.type_as(source)`."""
    like = cast.args[1] if len(cast.args) == 2 else cast.kwargs.get("dtype")
    if isinstance(like, fx.Node) and like.target is getattr and like.args[1] == "dtype":
        like = like.args[0]
    return like is source


def _weight_of(product: fx.Node | None, other: fx.Node) -> tuple[fx.Node | None, float]:
    """The parameter that a product scales `other` by, and the number added to it."""
    if product is None or len(product.args) != 2:
        return None, 0.0
    factors = [arg for arg in product.args if arg is not other]
    if len(factors) != 1 or not isinstance(factors[0], fx.Node):
        return None, 0.0
    factor = _uncast(factors[0])
    shifted = _with_number(factor, _SUMS)
    weight, offset = (_uncast(shifted[0]), shifted[1]) if shifted else (factor, 0.0)
    return (weight, offset) if weight.op == "get_attr" else (None, 0.0)
