"""Autograd functions of the user's: those that treat each entry by itself keep their axes, others freeze them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import varies
from graphgrow.ir.value import Value
from graphgrow.layers import OwnFunction
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined
from graphgrow.ops.registry import rule

_COPIES = frozenset({"alias", "clone", "detach", "_to_copy", "copy", "view", "_unsafe_view", "lift_fresh"})
"""Operators that put out the entries of one operand, where they keep the shape."""

_FINITE = _COPIES | frozenset(
    {"abs", "add", "sub", "rsub", "mul", "neg", "square", "sigmoid", "tanh", "sin", "cos", "atan", "erf", "sign", "sgn",
     "round", "floor", "ceil", "trunc", "heaviside", "clamp", "clamp_min", "clamp_max", "maximum", "minimum", "where",
     "eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or", "bitwise_not", "bitwise_and",
     "bitwise_or", "scalar_tensor", "relu", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus", "threshold",
     "hardtanh", "hardswish", "hardsigmoid"}
)  # fmt: skip
"""Operators that put out finite numbers for all finite ones."""


@rule(OwnFunction)
def own_function(call: Call, *args: Any) -> Any:
    """What a user's own function puts out: a function of each entry by itself, where that is seen."""
    assert isinstance(call.module, OwnFunction)
    operands = [value for value in args if isinstance(value, Value)]
    outputs = [call.meta] if isinstance(call.meta, torch.Tensor) else list(call.meta)
    examples = fx.node.map_arg(call.node.args, lambda node: node.meta["value"])
    seen = None if any(map(varies, args)) else _look(call.module, examples)
    if seen is None or not all(isinstance(output, torch.Tensor) for output in outputs):
        kind = call.module.kind.__name__
        raise RuleDeclined(f"{kind} is an autograd function, and not seen to treat each entry by itself")
    axes = align(call, [value.axes for value in operands])
    if seen.same and len(operands) == 1:
        flow: fl.Flow = call.same_flow(operands[0])
    else:
        flow = fl.Pointwise(tuple(map(call.operand, operands)), zero=seen.zero, total=seen.total)
    if isinstance(call.meta, torch.Tensor):
        return call.output(axes, flow)
    return tuple(call.output(axes, flow, index=i) for i in range(len(outputs)))


def treats_entries_alone(module: OwnFunction, args: tuple[Any, ...]) -> bool:
    """Whether the rule sees a function that treats each entry by itself.

    Args:
        module: the function.
        args: what it is given, tensors without data.
    """
    return _look(module, args) is not None


@dataclass(frozen=True)
class _Seen:
    """What was seen of a function that treats each entry by itself: that it changes none, f(0) = 0, f(x) finite."""

    same: bool
    zero: bool
    total: bool


def _look(module: OwnFunction, args: tuple[Any, ...]) -> _Seen | None:
    """Run a function without data, in two shapes; None unless it calls the same pointwise operators in both."""
    shapes = {tuple(arg.shape) for arg in args if isinstance(arg, torch.Tensor) and arg.dim()}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    try:
        first = _operators(module, args, shape)
        other = _operators(module, args, tuple(2 * size + 1 for size in shape))
        zeros = [
            torch.zeros((1,) * arg.dim(), dtype=arg.dtype) if isinstance(arg, torch.Tensor) else arg for arg in args
        ]
        with torch.no_grad():
            at_zero = pytree.tree_leaves(module(*zeros))
    except Exception:  # noqa: BLE001  # code of the user's, in a shape that it need not admit
        return None
    if first is None or first != other:
        return None
    names = {name for name, _ in first}
    total = names <= _FINITE or (names <= _FINITE | {"div"} and all(map(_divides_by_number, first)))
    return _Seen(names <= _COPIES, all(not bool(value.any()) for value in at_zero), total)


def _zero(arg: Any) -> Any:
    return torch.zeros((1,) * arg.dim(), dtype=arg.dtype) if isinstance(arg, torch.Tensor) else arg


def _divides_by_number(step: tuple[str, str]) -> bool:
    name, numbers = step
    return name != "div" or bool(numbers)


def _operators(module: OwnFunction, args: tuple[Any, ...], shape: tuple[int, ...]) -> list[tuple[str, str]] | None:
    """The names of torch's operators that the function calls, with their numbers; None if one may mix entries."""
    watch = _Watch(shape)
    resized = [arg.new_empty(shape) if isinstance(arg, torch.Tensor) and arg.dim() else arg for arg in args]
    with torch.no_grad(), watch:
        made = module(*resized)
    if any(tuple(leaf.shape) != shape for leaf in pytree.tree_leaves(made) if isinstance(leaf, torch.Tensor)):
        return None
    return watch.steps if watch.pointwise else None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator of torch that is called, and whether each treats entries of one shape by themselves."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shape, self.pointwise = shape, True
        self.steps: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removesuffix("_")
        leaves = pytree.tree_leaves((args, kwargs, answer))
        shaped = all(tuple(leaf.shape) in (self._shape, ()) for leaf in leaves if isinstance(leaf, torch.Tensor))
        drawn = torch.Tag.nondeterministic_seeded in func.tags
        self.pointwise &= shaped and not drawn and (name in _COPIES or torch.Tag.pointwise in func.tags)
        numbers = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if not isinstance(leaf, torch.Tensor)]
        self.steps.append((name, "" if name in _COPIES else repr(numbers) if numbers else ""))
        return answer
