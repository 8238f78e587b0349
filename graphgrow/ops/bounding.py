"""The bounds of what operators put out: one small function for each, beside the rules for their axes.

An operator that is not listed may put out anything. What is listed must hold for every input of finite numbers.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow import layers
from graphgrow.ir.bounds import Bounds
from graphgrow.ir.facts import Derived, Extent, NodeFacts, varies
from graphgrow.ir.value import Value
from graphgrow.layers import ByMode, CopyInOneMode, set_item
from graphgrow.ops.call import plain
from graphgrow.ops.registry import plain_of

# the operator's own arguments -> the bounds of all its outputs, or those of each
Bounding = Callable[..., Bounds | tuple[Bounds, ...]]

UNIT, POSITIVE, SYMMETRIC = Bounds(0.0, 1.0), Bounds(0.0), Bounds(-1.0, 1.0)


def bounds_of(argument: Any) -> Bounds:
    """The bounds of a tensor or a number among an operator's arguments, whatever sizes the inputs have.

    Of complex numbers they are those of the real parts: an exponential grows with these alone, and what is zero has
    none.
    """
    if isinstance(argument, (Extent, Derived)):
        argument = argument.bounds if varies(argument) else plain(argument)
    if isinstance(argument, Bounds):
        return argument
    if isinstance(argument, Value):
        return argument.bounds
    if isinstance(argument, (bool, int, float)) and math.isfinite(argument):
        return Bounds(float(argument), float(argument))
    if isinstance(argument, complex) and math.isfinite(argument.real):
        return Bounds(argument.real, argument.real)
    return Bounds()


def bound(facts: NodeFacts, module: nn.Module | None, args: Any, kwargs: Any) -> None:
    """Set what is known of the entries that an operator puts out.

    Bounds, where they are of floating point, and whether they are the same in every call.
    """
    found = output_bounds(facts.node, module, args, kwargs)
    sized = _is_sized(items((args, kwargs)))
    constant = bool(facts.operands) and all(value.constant for value in facts.operands) and not sized
    for i, (value, _) in enumerate(facts.flows):
        value.bounds, value.constant = found[i] if isinstance(found, tuple) else found, constant


def items(arguments: Any) -> Iterator[Any]:
    """What stands within nested arguments. A pytree would ask much more of each, and this runs at every node."""
    if isinstance(arguments, (tuple, list, dict)):
        for item in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from items(item)
    else:
        yield arguments


def _is_sized(given: Iterable[Any]) -> bool:
    """Whether a size that was read off a tensor is among the arguments."""
    return any(isinstance(item, (Extent, Derived)) for item in given)


def output_bounds(node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any) -> Bounds | tuple[Bounds, ...]:
    """The bounds of what a node puts out for arguments with known bounds: of all its outputs, or of each.

    Args:
        node: the node, with its example value.
        module: the module that it calls, if it does.
        args: its arguments, values in the place of the nodes that it reads.
        kwargs: those by name.
    """
    known = _known(type(module) if module is not None else node.target)
    example = node.meta["value"]
    example = example[0] if isinstance(example, (tuple, list)) and example else example
    if known is None or not isinstance(example, torch.Tensor):
        return Bounds()
    options = kwargs if module is None else _options(module)
    if not _takes(known, len(args), tuple(options)):  # a form that the rule for its axes knows, but this one does not
        return Bounds()
    if known is _counted:
        return _counted(*args, **options)
    exponent = node.args[1] if known is _power and len(node.args) == 2 else None
    if isinstance(exponent, fx.Node) and isinstance(args[1], Value):
        return _raised_by(bounds_of(args[0]), table_at(exponent)).rounded(torch.finfo(example.dtype).tiny)
    given = [_is_complex(one) for one in node.args]
    if example.is_complex() or any(given):
        return known(*args) if _keeps_real_parts(known, given) and not options else Bounds()
    if not example.is_floating_point():
        return Bounds()
    found, tiny = known(*args, **options), torch.finfo(example.dtype).tiny
    return tuple(one.rounded(tiny) for one in found) if isinstance(found, tuple) else found.rounded(tiny)


def _is_complex(given: Any) -> bool:
    """Whether an argument of a node is a complex number, or a tensor of them."""
    example = given.meta.get("value") if isinstance(given, fx.Node) else given
    return example.is_complex() if isinstance(example, torch.Tensor) else isinstance(example, complex)


def _keeps_real_parts(known: Bounding, given: list[bool]) -> bool:
    """Whether the real parts of what is put out follow from those of the complex operands as real numbers would."""
    if known in (_sum, _difference, _BY_NAME["neg"], _BY_NAME["view"]):
        return True
    return (known is _product and sum(given) == 1) or (known is _quotient and given == [True, False])


def table_at(node: fx.Node) -> torch.Tensor | None:
    """The buffer that a node stands for; None where it stands for something else."""
    found: Any = node.graph.owning_module if node.op == "get_attr" else None
    for part in str(node.target).split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, torch.Tensor) else None


def name_of(target: object) -> str | None:
    """The name under which an operator or a class of modules is known here; of one in place, that of the plain one."""
    return _names().get(target) or _names().get(plain_of(target))


def _known(target: object) -> Bounding | None:
    return _BY_NAME.get(name_of(target) or "")


def number_bounds(target: Any, args: Any, kwargs: Any) -> Bounds:
    """The bounds of a number that is computed from sizes: by what, and from which numbers."""
    known = _BY_NAME.get(_names().get(target, ""))
    if known is None or not _takes(known, len(args), tuple(kwargs)):
        return Bounds()
    found = known(*args, **kwargs)
    return Bounds() if isinstance(found, tuple) else found


@functools.cache
def _takes(known: Bounding, count: int, names: tuple[str, ...]) -> bool:
    """Whether it can be called with so many arguments by position, and these by name."""
    try:
        inspect.signature(known).bind(*range(count), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _options(module: nn.Module) -> dict[str, Any]:
    """The attributes of an activation module that its function takes too."""
    return {name: getattr(module, name) for name in ("alpha", "beta", "min_val", "max_val") if hasattr(module, name)}


def _always(bounds: Bounds | tuple[Bounds, ...]) -> Bounding:
    return lambda *args, **kwargs: bounds


def _first(change: Callable[[Bounds], Bounds]) -> Bounding:
    def of_first(input: Any, *args: Any, **kwargs: Any) -> Bounds:
        return change(bounds_of(input))

    return of_first


def _logarithm(input: Any, *args: Any, **kwargs: Any) -> Bounds:
    """On which side of zero, since numbers are rounded."""
    inner = bounds_of(input)
    return POSITIVE if inner.low >= 1 else Bounds(high=0.0) if inner.low > 0 and inner.high <= 1 else Bounds()


def _counted(start: Any, end: Any = None, step: Any = 1, **kwargs: Any) -> Bounds:
    """Numbers counted upwards, from zero where one is given alone."""
    first = Bounds(0.0, 0.0) if end is None else bounds_of(start)
    return Bounds(first.low) if bounds_of(step).low > 0 else Bounds()


def _spaced(start: Any, end: Any, steps: Any, **kwargs: Any) -> Bounds:
    return bounds_of(start) | bounds_of(end)


def _filled(input: Any, fill_value: Any, *args: Any, **kwargs: Any) -> Bounds:
    return bounds_of(fill_value)


def _any_of(*args: Any, **kwargs: Any) -> Bounds:
    """What comes from any of the tensors: those within lists too."""
    tensors = [item for item in items((args, kwargs)) if isinstance(item, Value)]
    return functools.reduce(operator.or_, (value.bounds for value in tensors), tensors[0].bounds)


def _masked(input: Any, mask: Any, value: Any) -> Bounds:
    return _chosen(mask, input, value)


def _chosen(condition: Any, input: Any, other: Any) -> Bounds:
    """One of two, either of which may be a number, and that infinite."""
    one, two = (Bounds(x, x) if isinstance(x, float) and math.isinf(x) else bounds_of(x) for x in (input, other))
    return one | two


def _sum(input: Any, other: Any, *, alpha: Any = 1) -> Bounds:
    return bounds_of(input) + bounds_of(other) * bounds_of(alpha)


def _difference(input: Any, other: Any, *, alpha: Any = 1) -> Bounds:
    found = bounds_of(input) + -(bounds_of(other) * bounds_of(alpha))
    stabilised = isinstance(other, Value) and plain(alpha) == 1 and any(input is value for value in other.above)
    return found & Bounds(high=0.0) if stabilised else found


def _product(input: Any, other: Any) -> Bounds:
    if input is other:
        return bounds_of(input).power(2)
    return bounds_of(input) * bounds_of(other)


def _quotient(input: Any, other: Any, *, rounding_mode: str | None = None) -> Bounds:
    return Bounds() if rounding_mode else bounds_of(input) * bounds_of(other).inverse()


def _floored(input: Any, other: Any) -> Bounds:
    return bounds_of(input).signed() if bounds_of(other).low > 0 else Bounds()


def _power(input: Any, exponent: Any) -> Bounds:
    number = plain(exponent)
    if varies(exponent) or not isinstance(number, (int, float)):
        return Bounds()
    return bounds_of(input).power(float(number))


def _raised_by(base: Bounds, exponents: torch.Tensor | None) -> Bounds:
    """Of a power by a tensor: positive ones of the model's own are taken to stay below twice what they are."""
    if base.low < 0:
        return Bounds()
    if exponents is None or exponents.is_meta or not bool((exponents > 0).all()):
        return POSITIVE
    steepest = 2 * float(exponents.detach().max())
    return Bounds(min(1.0, base.power(steepest).low), max(1.0, base.power(steepest).high))


def _matrix_product(input: Any, other: Any) -> Bounds:
    return (bounds_of(input) * bounds_of(other)).summed()


def _einsum(equation: Any, *operands: Any) -> Bounds:
    values = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    return functools.reduce(operator.mul, map(bounds_of, values)).summed()


def _clamped(input: Any, min: Any = None, max: Any = None) -> Bounds:
    low = Bounds() if min is None else bounds_of(min)
    high = Bounds() if max is None else bounds_of(max)
    return bounds_of(input).within(low.low, high.high)


def _clamped_below(input: Any, min: Any) -> Bounds:
    return _clamped(input, min=min)


def _clamped_above(input: Any, max: Any) -> Bounds:
    return _clamped(input, max=max)


def _exponential(input: Any) -> Bounds:
    given = bounds_of(input)
    lowest = 0.99 * math.exp(given.low) if given.low >= -700 else 0.0  # whatever is rounded
    return Bounds(lowest, math.exp(given.high) if given.high <= 700 else math.inf)


def _root(input: Any) -> Bounds:
    return (bounds_of(input) & POSITIVE).power(0.5)


def _inverse_root(input: Any) -> Bounds:
    return _root(input).inverse()


def _elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Bounds:
    return Bounds(-abs(alpha))


def _limited(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Bounds:
    return Bounds(min_val, max_val)


def _softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Bounds:
    return Bounds(0.0) if beta > 0 else Bounds(high=0.0)


def _size(*args: Any, **kwargs: Any) -> Bounds:
    """A norm or a spread."""
    return POSITIVE


def _averaged(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Bounds:  # fmt: skip
    """Means of windows, in which padding counts as zeros."""
    found = bounds_of(input)
    if divisor_override is not None:
        return found.signed()
    return found if padding == 0 and not varies(padding) else found | Bounds(0.0, 0.0)


def _same(bounds: Bounds) -> Bounds:
    return bounds


def _between(input: Any, end: Any, weight: Any) -> Bounds:
    share = bounds_of(weight)
    inside = share.low >= 0 and share.high <= 1
    return bounds_of(input) | bounds_of(end) if inside else Bounds()


def _copied(input: Any, src: Any, non_blocking: bool = False) -> Bounds:
    return bounds_of(src)


def _assigned(input: Any, index: Any, value: Any) -> Bounds:
    return bounds_of(input) | bounds_of(value)


_EITHER, _CHOICE = "either", "choice"  # of modules that pass on one of their inputs, and of `torch.where`

_BY_NAME: dict[str, Bounding] = {
    "relu": _first(lambda b: b.within(0.0, math.inf)),
    "relu6": _always(Bounds(0.0, 6.0)),
    "abs": _first(Bounds.magnitude), "square": _first(lambda b: b.power(2)),
    "elu": _elu, "hardtanh": _limited,
    "exp": _exponential, "log": _logarithm, "sqrt": _root, "rsqrt": _inverse_root,
    "reciprocal": _first(Bounds.inverse), "neg": _first(operator.neg),
    "add": _sum, "iadd": _sum, "sub": _difference, "isub": _difference,
    "mul": _product, "imul": _product, "multiply": _product,
    "truediv": _quotient, "div": _quotient, "true_divide": _quotient,
    "floordiv": _floored, "pow": _power, "__pow__": _power,
    "matmul": _matrix_product, "bmm": _matrix_product, "mm": _matrix_product, "dot": _matrix_product,
    "einsum": _einsum, "arange": _counted, "linspace": _spaced,
    "clamp": _clamped, "clip": _clamped, "clamp_min": _clamped_below, "clamp_max": _clamped_above,
    **dict.fromkeys(("sum", "cumsum"), _first(Bounds.summed)), "dropout": _first(Bounds.signed),
    "full_like": _filled, "ones_like": _always(Bounds(1.0, 1.0)), "zeros_like": _always(Bounds(0.0, 0.0)),
    **dict.fromkeys(("sigmoid", "hardsigmoid", "softmax", "rand", "rand_like"), _always(UNIT)),
    "softplus": _softplus, **dict.fromkeys(("var", "std", "norm", "vector_norm"), _size),
    **dict.fromkeys(("tanh", "sin", "cos", "erf", "softsign"), _always(SYMMETRIC)),
    **dict.fromkeys(("normalize", "cosine_similarity"), _always(Bounds(-1.01, 1.01))),  # rounded: above 1
    **dict.fromkeys(("var_mean", "std_mean"), _always((POSITIVE, Bounds()))),
    **dict.fromkeys(("log_softmax", "logsigmoid"), _always(Bounds(high=0.0))),
    **dict.fromkeys(("cat", "concat", "stack", "maximum", "minimum", _EITHER), _any_of),
    "masked_fill": _masked, _CHOICE: _chosen, "lerp": _between, "copy_": _copied, "store_": _copied,
    set_item.__name__: _assigned,
    **dict.fromkeys(
        ("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand",
         "expand_as", "repeat", "contiguous", "clone", "detach", "float", "double", "half",
         "bfloat16", "to", "cpu", "type_as", "as_tensor", "asarray", "unbind", "select", "chunk",
         "split", "getitem", "movedim", "flip", "roll", "mean", "amax", "amin",
         *(f"{kind}_pool{rank}d" for kind in ("adaptive_avg", "adaptive_max", "max") for rank in (1, 2, 3))),
        _first(_same)),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _averaged),
}  # fmt: skip

_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.ELU: "elu", nn.Hardtanh: "hardtanh", nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid", nn.Softmax: "softmax", nn.Softplus: "softplus", nn.Tanh: "tanh",
    nn.Softsign: "softsign", nn.LogSoftmax: "log_softmax", nn.LogSigmoid: "logsigmoid", nn.Identity: "clone",
    nn.Dropout: "dropout", nn.Flatten: "flatten", nn.AdaptiveAvgPool1d: "mean", nn.AdaptiveAvgPool2d: "mean",
    nn.AdaptiveAvgPool3d: "mean", nn.MaxPool1d: "max_pool1d", nn.MaxPool2d: "max_pool2d", nn.MaxPool3d: "max_pool3d",
    ByMode: _EITHER, CopyInOneMode: _EITHER,
}  # fmt: skip


@functools.cache
def _names() -> dict[object, str]:
    """By function, name of a method, or class of a module, under which name it is known."""
    owners = (torch, F, operator, math, torch.linalg, layers)
    functions = {found: name for name in _BY_NAME for found in _named(owners, name)}
    return {**functions, **{name: name for name in _BY_NAME}, **_MODULES, torch.where: _CHOICE}


def _named(owners: Iterable[Any], name: str) -> list[Any]:
    return [getattr(owner, name) for owner in owners if hasattr(owner, name)]
