"""Operators that may answer finite numbers with infinity or NaN.

Zero times infinity is NaN: a connection is closed by a zero only where what flows through it is finite. Linear maps,
norms and the activations of torch.nn grow at most polynomially and are trusted; an exponential, or a division by what
may vanish, is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.errors import Declined
from graphgrow.ir.bounds import Bounds
from graphgrow.ir.facts import NodeFacts, flatten_values
from graphgrow.ir.value import Value
from graphgrow.network.ranges import Ranges, operator_name
from graphgrow.ops.registry import rule_of

_UNBOUNDED = {
    "exp2", "expm1", "sinh", "cosh", "tan", "asin", "acos", "atanh", "acosh", "arcsin", "arccos", "arctanh", "arccosh",
    "erfinv", "erfcx", "ndtri", "logit", "entr", "lgamma", "digamma", "polygamma", "mvlgamma", "i0", "i1",
    "addcdiv", "float_power", "ldexp", "xlogy", "xlog1py",
    "logdet", "slogdet", "inverse", "inv", "pinverse", "pinv", "cholesky", "cholesky_solve", "solve",
    "solve_triangular", "matrix_exp", "matrix_power", "cond", "weight_norm", "kl_div", "poisson_nll_loss",
}  # fmt: skip
_OF_POSITIVE = {"rsqrt", "log", "log2", "log10"}
_QUOTIENTS = {
    "truediv", "div", "divide", "true_divide", "floordiv", "floor_divide", "mod", "remainder", "fmod",
}  # fmt: skip


def refuse_infinite(value: Any) -> None:
    """Decline where a value may be infinite by the model's own doing: nothing that reads it is closed by a zero.

    Raises:
        Declined: if it may.
    """
    if isinstance(value, Value) and value.infinite:
        raise Declined(f"`{value.name}` may be infinite, as a mask leaves it, and zero times infinity is not zero")


def first_infinite(facts: Iterable[NodeFacts], result: str) -> Value | None:
    """What may be infinite where maps that are zero read it, or where it leaves a block, whose result has that name."""
    for one in facts:
        read = [value for c in one.contractions for value in (c.left, c.right)]
        left = flatten_values(one.output) if one.node.name == result else iter(())
        found = next((value for value in chain(read, left) if value.infinite), None)
        if found is not None:
            return found
    return None


def first_overflowing(nodes: Iterable[fx.Node], sources: Collection[fx.Node]) -> fx.Node | None:
    """The first of some nodes, in graph order, that may turn finite values of the sources into infinity or NaN."""
    reached, ranges = set(sources), Ranges(sources)
    for node in nodes:
        if any(used in reached for used in node.all_input_nodes):
            if _holds_no_tensor(node):  # a size, a device: the same for all values
                continue
            reached.add(node)
            if _may_overflow(node, reached, ranges):
                return node
    return None


def _holds_no_tensor(node: fx.Node) -> bool:
    return not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(node.meta.get("value")))


def _may_overflow(node: fx.Node, reached: Collection[fx.Node], ranges: Ranges) -> bool:
    name, first = operator_name(node), node.args[0] if node.args else None
    if name in _UNBOUNDED or (name and rule_of(node, None) is None):  # what nothing is known of is not trusted
        return True
    if name == "exp":
        return ranges.of(node).high > _largest(node)
    if name in _OF_POSITIVE:
        return not ranges.of(first).low > 0
    if name == "log1p":
        return not ranges.of(first).low > -1
    if name == "sqrt":
        return not ranges.of(first).low >= 0
    if name == "reciprocal":
        return not ranges.of(first).excludes_zero
    if name in _QUOTIENTS:
        denominator = node.args[1] if len(node.args) > 1 else node.kwargs.get("other")
        return denominator in reached and not _keeps_from_zero(denominator, ranges)
    if name == "pow":
        return _power_may_overflow(ranges.of(first), node.args[1] if len(node.args) > 1 else None)
    return False


def _power_may_overflow(base: Bounds, exponent: Any) -> bool:
    if not isinstance(exponent, (int, float)):
        return True
    if float(exponent).is_integer():
        return exponent < 0 and not base.excludes_zero
    return not (base.low > 0 if exponent < 0 else base.low >= 0)


def _largest(node: fx.Node) -> float:
    example = node.meta.get("value")
    return torch.finfo(example.dtype).max if isinstance(example, torch.Tensor) and example.is_floating_point() else 0.0


def _keeps_from_zero(value: Any, ranges: Ranges) -> bool:
    """Whether no entry of a denominator is zero."""
    if ranges.of(value).excludes_zero:
        return True
    summed = isinstance(value, fx.Node) and operator_name(value) in ("sum", "amax") and _last_axis(value)
    return summed and not ranges.is_source(value) and _holds_largest_share(value.args[0], ranges)


def _holds_largest_share(value: Any, ranges: Ranges) -> bool:
    """Whether a value holds, along its last axis, the largest entry of a softmax: at least 1 / n of n entries."""
    while isinstance(value, fx.Node) and value.args and not ranges.is_source(value):
        name, first = operator_name(value), value.args[0]
        if name == "softmax":
            return _last_axis(value)
        if name == "getitem" and value.args[1] == 0 and isinstance(first, fx.Node) and operator_name(first) == "topk":
            if first.kwargs.get("largest", True) is not True or len(first.args) > 2 or not _last_axis(first, -1):
                return False
            value = first.args[0]
        elif name in ("to", "float", "double", "type_as", "contiguous", "clone"):
            value = first
        else:
            return False
    return False


def _last_axis(node: fx.Node, default: int | None = None) -> bool:
    """Whether an operator works along the last axis of its first argument."""
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 and operator_name(node) != "topk" else default)
    (dim,) = dim if isinstance(dim, (list, tuple)) and len(dim) == 1 else (dim,)
    example = node.args[0].meta.get("value") if isinstance(node.args[0], fx.Node) else None
    return isinstance(dim, int) and isinstance(example, torch.Tensor) and dim in (-1, example.dim() - 1)
