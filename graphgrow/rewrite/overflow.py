"""Operators that may answer finite numbers with infinity or NaN.

Zero times infinity is NaN: a connection is closed by a zero only where what flows through it is finite. Linear maps,
norms and the activations of torch.nn grow at most polynomially and are trusted; an exponential, or a division by what
may vanish, is not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphgrow.errors import Declined
from graphgrow.ir.facts import NodeFacts, flatten_values
from graphgrow.ir.value import Value
from graphgrow.ops.registry import rule_of

_UNBOUNDED = {
    "exp", "exp2", "expm1", "sinh", "cosh", "tan", "special_expm1", "asin", "acos", "atanh", "acosh", "arcsin",
    "arccos", "arctanh", "arccosh", "erfinv", "logit", "lgamma", "digamma",
    "addcdiv", "float_power",
}  # fmt: skip
_OF_POSITIVE = {"rsqrt", "reciprocal", "log", "log2", "log10"}
_OF_NONNEGATIVE = {"sqrt", "log1p"}
_PASSING = {
    "mean", "sum", "to", "float", "double", "half", "bfloat16", "type_as", "view", "reshape", "unsqueeze", "squeeze",
    "expand", "expand_as", "transpose", "permute", "contiguous", "clone", "amax", "max", "sqrt",
}  # fmt: skip
_NEVER_NEGATIVE = {
    "square", "abs", "exp", "exp2", "sigmoid", "softplus", "softmax", "relu", "relu6", "hardsigmoid", "var", "std",
    "norm", "vector_norm",
}  # fmt: skip
_DEPTH = 8  # steps back to which a sign is followed


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
    reached = set(sources)
    for node in nodes:
        if any(used in reached for used in node.all_input_nodes):
            if _is_number(node):  # read off a shape, the same for all values
                continue
            reached.add(node)
            if _may_overflow(node, reached):
                return node
    return None


def _is_number(node: fx.Node) -> bool:
    leaves = pytree.tree_leaves(node.meta.get("value"))
    return bool(leaves) and all(isinstance(leaf, (int, float)) for leaf in leaves)


def _may_overflow(node: fx.Node, reached: Collection[fx.Node]) -> bool:
    name, first = _name(node), node.args[0] if node.args else None
    if name in _UNBOUNDED or (name and rule_of(node, None) is None):  # what nothing is known of is not trusted
        return True
    if name in _OF_POSITIVE:
        return not _positive(first)
    if name in _OF_NONNEGATIVE:
        return not _not_negative(first)
    if name in ("truediv", "div", "divide", "true_divide", "floordiv", "floor_divide", "mod", "remainder", "fmod"):
        denominator = node.args[1] if len(node.args) > 1 else node.kwargs.get("other")
        return denominator in reached and not _positive(denominator)
    if name == "pow":
        return _power_may_overflow(first, node.args[1] if len(node.args) > 1 else None)
    return False


def _power_may_overflow(base: Any, exponent: Any) -> bool:
    if not isinstance(exponent, (int, float)):
        return True
    if exponent < 0:
        return not _positive(base)
    return not float(exponent).is_integer() and not _not_negative(base)


def _positive(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a value is bounded away from zero from above, for all inputs."""
    if isinstance(value, (int, float)):
        return value > 0
    if not isinstance(value, fx.Node) or not depth:
        return False
    name = _name(value)
    if name == "add" and len(value.args) == 2 and not value.kwargs:
        first, second = value.args
        return any(
            _positive(a, depth - 1) and _not_negative(b, depth - 1) for a, b in ((first, second), (second, first))
        )
    if name in ("clamp", "clip", "clamp_min"):
        return _lower_limit(value) > 0
    if name in ("sum", "amax") and _last_axis(value) and _holds_largest_share(value.args[0]):
        return True
    return name in _PASSING and bool(value.args) and _positive(value.args[0], depth - 1)


def _holds_largest_share(value: Any) -> bool:
    """Whether a value holds, along its last axis, the largest entry of a softmax: at least 1 / n of n entries."""
    while isinstance(value, fx.Node) and value.args:
        name, first = _name(value), value.args[0]
        if name == "softmax":
            return _last_axis(value)
        if name == "getitem" and value.args[1] == 0 and isinstance(first, fx.Node) and _name(first) == "topk":
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
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 and _name(node) != "topk" else default)
    (dim,) = dim if isinstance(dim, (list, tuple)) and len(dim) == 1 else (dim,)
    example = node.args[0].meta.get("value") if isinstance(node.args[0], fx.Node) else None
    return isinstance(dim, int) and isinstance(example, torch.Tensor) and dim in (-1, example.dim() - 1)


def _not_negative(value: Any, depth: int = _DEPTH) -> bool:
    if isinstance(value, (int, float)):
        return value >= 0
    if not isinstance(value, fx.Node) or not depth:
        return False
    name = _name(value)
    if name in _NEVER_NEGATIVE:
        return True
    if name == "pow" and len(value.args) == 2:
        return isinstance(value.args[1], int) and value.args[1] % 2 == 0
    if name == "add" and len(value.args) == 2 and not value.kwargs:
        return all(_not_negative(term, depth - 1) for term in value.args)
    if name == "mul" and len(value.args) == 2:
        return value.args[0] is value.args[1] or all(_not_negative(factor, depth - 1) for factor in value.args)
    if name in ("clamp", "clip", "clamp_min"):
        return _lower_limit(value) >= 0
    return name in _PASSING and bool(value.args) and _not_negative(value.args[0], depth - 1)


def _lower_limit(node: fx.Node) -> float:
    limit = node.args[1] if len(node.args) > 1 else node.kwargs.get("min")
    return float(limit) if isinstance(limit, (int, float)) else -math.inf


def _name(node: fx.Node) -> str:
    """The operator's name: `exp` for torch.exp, x.exp() and x.exp_() alike; empty for modules."""
    if node.op not in ("call_function", "call_method"):
        return ""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    name = name.removeprefix("linalg_").strip("_")
    return {"iadd": "add", "imul": "mul", "itruediv": "truediv", "ipow": "pow"}.get(name, name)
