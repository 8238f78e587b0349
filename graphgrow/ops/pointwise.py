"""Elementwise operators: activations, arithmetic with broadcasting, casts."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.ir import flow as fl
from graphgrow.ir.facts import varies
from graphgrow.ir.terms import Concat
from graphgrow.ir.value import Fresh, Value
from graphgrow.layers import Blend, ByMode, Choice, Gate, Zeros
from graphgrow.ops.bounding import bounds_of
from graphgrow.ops.broadcast import align
from graphgrow.ops.call import Call, RuleDeclined, plain
from graphgrow.ops.factories import constant
from graphgrow.ops.registry import module_rule, rule

FLAT_MODULES = (nn.ReLU, nn.ReLU6, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink)
FLAT = {"relu", "relu_", "relu6", "tanhshrink", "softshrink", "hardshrink", "abs", "square",
        "sign", "sgn", "round", "ceil", "floor", "trunc"}  # fmt: skip
"""Functions whose slope at zero is zero, as torch differentiates them."""


@rule(
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.SELU, nn.CELU, nn.Mish,
    nn.Hardswish, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink,
    F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.tanh, F.elu, F.selu, F.celu, F.mish, F.hardswish,
    F.softsign, torch.relu, torch.tanh, torch.sin, torch.abs, operator.abs, torch.square, torch.relu_, F.relu_,
    torch.erf,
    "transformers.models.bloom.modeling_bloom.BloomGelu",
    torch.sign, "relu", "relu_", "tanh", "sin", "abs", "square", "erf", "sign",
    F.tanhshrink, F.softshrink, F.hardshrink, torch.atan, "atan", torch.arctan, "arctan", torch.asinh, "asinh",
    torch.round, "round", torch.ceil, "ceil", torch.floor, "floor", torch.trunc, "trunc", torch.frac, "frac",
    torch.nan_to_num, "nan_to_num", "tanh_", torch.sgn, "sgn",
)  # fmt: skip
def zero_keeping(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """f(0) = 0, finite everywhere."""
    flat = call.name in FLAT if call.module is None else isinstance(call.module, FLAT_MODULES)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True, flat=flat))


@rule(nn.Hardtanh, F.hardtanh)
def limited(call: Call, input: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    """Zero at zero only where that lies between the limits."""
    module = call.module
    low, high = (module.min_val, module.max_val) if isinstance(module, nn.Hardtanh) else (min_val, max_val)
    held = not varies(low) and not varies(high)
    zero, flat = held and low <= 0 <= high, held and 0 in (low, high)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=zero, flat=flat))


@rule(nn.RReLU)
def random_slope(call: Call, input: Value) -> Value:
    """Below zero, a slope that is drawn for each element by itself in train mode."""
    call.noise(input, 1.0)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))


@rule(
    nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Softplus,
    F.sigmoid, F.hardsigmoid, F.logsigmoid, F.softplus, torch.sigmoid, torch.cos, "sigmoid", "cos", "sigmoid_",
    torch.erfc, "erfc", torch.sinc, "sinc", nn.Threshold, F.threshold, torch.isnan, torch.isinf, torch.isfinite,
    "isnan", "isinf", "isfinite", torch.signbit, "signbit", torch.isposinf, "isposinf", torch.isneginf, "isneginf",
)  # fmt: skip
def bounded(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Finite everywhere, not zero at zero."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),)))


@rule(torch.exp, torch.exp2, torch.cosh, "exp", "exp2", "cosh")
def growing(call: Call, input: Value) -> Value:
    """Finite near zero, but not everywhere: new units of zero are harmless, free ones could overflow."""
    total = call.name in ("exp", "exp2") and _exponent_fits(call, input)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), total=total, total_at_zero=True))


def _exponent_fits(call: Call, input: Value) -> bool:
    """Whether the exponential of the largest value that the input can have is finite."""
    return input.bounds.high <= math.log(torch.finfo(call.meta.dtype).max)


@rule(torch.expm1, torch.log1p, torch.sinh, torch.tan, "expm1", "log1p", "sinh", "tan", torch.asin, "asin",
      torch.arcsin, "arcsin", torch.atanh, "atanh", torch.arctanh, "arctanh")  # fmt: skip
def growing_from_zero(call: Call, input: Value) -> Value:
    """f(0) = 0; finite near zero, but not everywhere."""
    if call.name in ("asin", "arcsin", "atanh", "arctanh"):
        total = _is_inside(input)
    else:
        fits = call.name == "expm1" and _exponent_fits(call, input)
        total = fits or (call.name == "log1p" and input.bounds.low > -1)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True, total=total, total_at_zero=True))


@rule(torch.log, torch.log2, torch.log10, torch.sqrt, torch.rsqrt, torch.reciprocal,
      "log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", torch.acosh, "acosh")  # fmt: skip
def partial(call: Call, input: Value) -> Value:
    """Neither finite everywhere nor at zero: free new units could make 0 times inf of a closed reading weight."""
    total = input.bounds.low > (1 if call.name == "acosh" else 0)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), total=total))


@rule(torch.acos, "acos", torch.arccos, "arccos")
def angle_of_cosine(call: Call, input: Value) -> Value:
    """Finite between -1 and 1, with a slope that is not at these."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), total=_is_inside(input)))


def _is_inside(input: Value) -> bool:
    """Whether every entry is above -1 and below 1."""
    return input.bounds.low > -1 and input.bounds.high < 1


@rule(torch.clamp, "clamp", torch.clip, "clip", torch.clamp_, "clamp_", "clip_")
def clamp(call: Call, input: Value, min: Any = None, max: Any = None) -> Value:
    """Limits that are numbers, or tensors of one number each, between which zero need not lie."""
    if any(isinstance(limit, Value) and limit.axes for limit in (min, max)):
        raise RuleDeclined("limits that are tensors")
    moving = any(isinstance(limit, Value) or varies(limit) for limit in (min, max))
    zero = not moving and (min is None or min <= 0) and (max is None or max >= 0)
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=zero))


@rule(torch.clamp_min, "clamp_min", "clamp_min_")
def at_least(call: Call, input: Value, min: Any) -> Value:
    """A lower limit."""
    return clamp(call, input, min=min)


@rule(torch.clamp_max, "clamp_max", "clamp_max_")
def at_most(call: Call, input: Value, max: Any) -> Value:
    """An upper limit."""
    return clamp(call, input, max=max)


@rule(operator.mod, torch.remainder, torch.fmod, "remainder", "fmod", operator.floordiv, torch.floor_divide,
      "floor_divide")  # fmt: skip
def rest(call: Call, input: Any, other: Any) -> Value:
    """A division by a number without a rest, or what is left of it; one by a tensor may not be finite."""
    if isinstance(input, Value) and isinstance(plain(other), (int, float)) and bounds_of(other).excludes_zero:
        flat = call.name in ("floordiv", "floor_divide")
        return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True, flat=flat))
    operands = [value for value in (input, other) if isinstance(value, Value)]
    return call.output(_broadcast(call, operands), fl.Pointwise(tuple(map(call.operand, operands)), total=False))


@rule(F.prelu, torch.prelu, "prelu")
def prelu_function(call: Call, input: Value, weight: Value) -> Value:
    """One slope for all units, or one for each channel."""
    terms = [call.operand(input)]
    if weight.axes[0].size == 1:
        call.freeze(weight.axes, "one slope for all units")
    else:
        call.same(input.axes[1], weight.axes[0])
        if call.module is not None:
            call.attribute("num_parameters", weight.axes[0])
        terms.append(call.operand(weight))
    return call.output(input.axes, fl.Pointwise(tuple(terms)))


@rule(nn.PReLU)
def prelu(call: Call, input: Value) -> Value:
    """nn.PReLU."""
    return prelu_function(call, input, call.weight("weight", Fresh.LIKE))


@rule(Gate)
def gate(call: Call, input: Value) -> Value:
    """A factor that is the same for all units."""
    call.weight("gate")
    return call.output(input.axes, call.same_flow(input))


@rule(Zeros)
def zeros(call: Call, input: Value) -> Value:
    """Zero at zero, and everywhere else."""
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True))


@rule(Choice)
def choice(call: Call, *values: Value) -> Value:
    """A sum with one weight for all units of each value."""
    for name in ("alpha", "opened", "anchor", "temperature"):
        call.freeze(call.weight(name).axes, "one weight for each operator of a choice")
    return call.output(_broadcast(call, list(values)), fl.Add(tuple(map(call.operand, values))))


@rule(ByMode)
def by_mode(call: Call, in_train: Value, in_eval: Value) -> Value:
    """One of two values of one shape: in each mode the new units hold what those of its value hold."""
    operands = [in_train, in_eval]
    return call.output(_broadcast(call, operands), fl.Choose(tuple(map(call.operand, operands))))


@rule(Blend)
def blend(call: Call, input: Value) -> Value:
    """A sum of two activations of one value, each elementwise and without weights for each channel."""
    module = call.module
    assert isinstance(module, Blend)
    call.weight("s")
    rules = [module_rule(part) for part in (module.old, module.new)]
    if any(one not in (zero_keeping, limited, bounded, prelu, identity) for one in rules):
        raise RuleDeclined("a blend of what is not elementwise")
    slopes = [part.num_parameters for part in (module.old, module.new) if isinstance(part, nn.PReLU)]
    if any(count > 1 for count in slopes):
        raise RuleDeclined("a blend with a slope for each channel")
    zero = all(isinstance(part, nn.PReLU) or not part(torch.zeros(())).any() for part in (module.old, module.new))
    return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=zero))


@rule(
    nn.Identity, operator.pos, torch.positive, "positive", operator.neg, torch.neg, "neg", "contiguous", "clone",
    "detach", "requires_grad_", torch.clone, torch.deg2rad, "deg2rad", torch.rad2deg, "rad2deg",
)  # fmt: skip
def identity(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Each unit as it is, up to a factor that is the same for all."""
    output = call.output(input.axes, call.same_flow(input))
    output.above = input.above if call.name in ("detach", "clone", "contiguous") else ()
    return output


@rule("to", "cpu", "cuda", "type", "type_as", "float", "double", "half", "bfloat16", "long", "int", "short", "char",
      "byte", torch.as_tensor, torch.asarray)  # fmt: skip
def cast(call: Call, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Another dtype or device; what becomes a whole number or a truth is no longer linear.

    Nor is what is rounded more coarsely than the model's own parameters are: neither do the shares of a number add up
    to it then, nor is a mean of numbers that of the rounded ones. The name of a type is all that `x.type()` returns.
    """
    if isinstance(call.meta, str):
        return call.meta
    if not isinstance(input, Value):
        return constant(call, input)
    if not (call.meta.is_floating_point() or call.meta.is_complex()):
        return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True, flat=True))
    if _rounds(call):
        wide = torch.finfo(call.meta.dtype).max > torch.finfo(torch.float16).max
        return call.output(input.axes, fl.Pointwise((call.operand(input),), zero=True, total=wide, total_at_zero=True))
    return call.output(input.axes, call.same_flow(input))


def _rounds(call: Call) -> bool:
    """Whether a cast is to a coarser type than that of what it casts, and than the finest of the model's parameters."""
    source, module = call.node.args[0], call.node.graph.owning_module
    given = source.meta["value"].dtype if isinstance(source, fx.Node) else call.meta.dtype
    floating = [p.dtype for p in module.parameters() if p.is_floating_point() or p.is_complex()] if module else []
    if not floating or not (given.is_floating_point or given.is_complex):
        return False
    finest = min(torch.finfo(dtype).eps for dtype in set(floating))
    return torch.finfo(call.meta.dtype).eps > max(finest, torch.finfo(given).eps)


def _broadcast(call: Call, operands: list[Value]) -> tuple[Any, ...]:
    return align(call, [value.axes for value in operands])


@rule(operator.add, operator.sub, operator.iadd, operator.isub, torch.add, torch.sub, torch.rsub,
      "add", "add_", "sub", "sub_", "__add__", "__radd__", "__iadd__")  # fmt: skip
def add(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    """A sum; a number is the same for all units."""
    operands = [value for value in (input, other) if isinstance(value, Value)]
    if len(operands) < 2:
        # x + c moves every unit alike: copies stay copies, means stay means, zeros do not stay zeros
        value = operands[0]
        return call.output(value.axes, fl.Add((call.operand(value), fl.Operand(value, ()))))
    centred = _minus_its_mean(call, operands) if plain(alpha) == 1 else None
    if centred is not None:
        return centred
    return call.output(_broadcast(call, operands), fl.Add(tuple(map(call.operand, operands))))


def _minus_its_mean(call: Call, operands: list[Value]) -> Value | None:
    """X - x.mean(dim, keepdim=True): zero where x is at its mean."""
    whole, mean = operands
    if mean.mean_of is None or mean.mean_of[0] is not whole or not call.name.strip("_").endswith("sub"):
        return None
    operand, axis = call.operand(whole), mean.mean_of[1]
    axes = _broadcast(call, operands)
    return call.output(axes, fl.Centred(operand, (whole.axes[axis],), fl.Add((operand, call.operand(mean)))))


@rule(operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__", "__rmul__", "__imul__", torch.multiply)
def multiply(call: Call, input: Any, other: Any) -> Value:
    """A product, linear in each factor."""
    operands = [value for value in (input, other) if isinstance(value, Value)]
    for value in operands:
        if value.parameter and len(operands) == 2:
            call.starts(value, Fresh.LIKE)
    return call.output(_broadcast(call, operands), fl.Mul(tuple(map(call.operand, operands))))


@rule(torch.addcmul, "addcmul", "addcmul_")
def add_product(call: Call, input: Value, tensor1: Value, tensor2: Value, *, value: Any = 1) -> Value:
    """A sum of one operand and the product of two others: input + value * tensor1 * tensor2."""
    operands = [input, tensor1, tensor2]
    flow = fl.Add((call.operand(input), fl.Mul((call.operand(tensor1), call.operand(tensor2)))))
    return call.output(_broadcast(call, operands), flow)


@rule(operator.truediv, torch.div, torch.true_divide, "div", "div_", "__truediv__")
def divide(call: Call, input: Any, other: Any, *, rounding_mode: str | None = None) -> Value:
    """Linear in the numerator; a denominator over growing units may vanish on them."""
    if rounding_mode is not None:
        operands = [value for value in (input, other) if isinstance(value, Value)]
        return call.output(_broadcast(call, operands), fl.Pointwise(tuple(map(call.operand, operands)), total=False))
    if not isinstance(other, Value):
        return call.output(input.axes, call.same_flow(input))
    denominator = fl.Pointwise((call.operand(other),), total=other.bounds.excludes_zero)
    if not isinstance(input, Value):
        return call.output(other.axes, denominator)
    return call.output(_broadcast(call, [input, other]), fl.Mul((call.operand(input), denominator)))


@rule(torch.pow, operator.pow, "pow", "__pow__", torch.float_power, "float_power")
def power(call: Call, input: Any, exponent: Any) -> Value:
    """A power x ** p by a number, or of or by a tensor."""
    if not isinstance(input, Value) or isinstance(exponent, Value):
        operands = [value for value in (input, exponent) if isinstance(value, Value)]
        total = _is_one_number(exponent) and isinstance(input, Value) and input.bounds.low > 0
        return call.output(_broadcast(call, operands), fl.Pointwise(tuple(map(call.operand, operands)), total=total))
    whole = not varies(exponent) and float(exponent).is_integer() and float(exponent) > 0
    total = whole or input.bounds.low > 0
    return call.output(
        input.axes, fl.Pointwise((call.operand(input),), zero=whole, total=total, flat=whole and exponent > 1)
    )


def _is_one_number(exponent: Any) -> bool:
    """Whether an exponent is a single number that no input has a part in, as that of a generalised mean."""
    return isinstance(exponent, Value) and exponent.constant and all(term.size == 1 for term in exponent.axes)


@rule(torch.maximum, torch.minimum, torch.fmax, torch.fmin, "maximum", "minimum")
def extreme(call: Call, input: Value, other: Value) -> Value:
    """The larger or smaller of two."""
    operands = [input, other]
    output = call.output(_broadcast(call, operands), fl.Pointwise(tuple(map(call.operand, operands)), zero=True))
    output.above = (input, other) if call.name == "maximum" else ()
    return output


@rule(torch.logaddexp, "logaddexp", torch.logaddexp2, "logaddexp2")
def soft_maximum(call: Call, input: Value, other: Value) -> Value:
    """Finite everywhere, log 2 at zeros."""
    operands = [input, other]
    return call.output(_broadcast(call, operands), fl.Pointwise(tuple(map(call.operand, operands))))


@rule(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, torch.eq, torch.ne, torch.lt,
      torch.le, torch.gt, torch.ge, operator.and_, operator.or_, operator.invert, torch.logical_not,
      torch.logical_and, torch.logical_or, torch.logical_xor, operator.xor, torch.isclose,
      "eq", "ne", "lt", "le", "gt", "ge", "bool", "logical_not")  # fmt: skip
def compare(call: Call, input: Any, other: Any = None) -> Value:
    """Comparisons and their logic: finite, whatever they are given."""
    operands = [value for value in (input, other) if isinstance(value, Value)]
    return call.output(_broadcast(call, operands), fl.Pointwise(tuple(map(call.operand, operands))))


@rule(torch._assert)
def assertion(call: Call, condition: Any, message: Any = None) -> None:
    """An assertion that the user's model makes: it stays in the graph and says nothing of axes."""


@rule(nn.GLU, F.glu)
def glu(call: Call, input: Value, dim: int = -1) -> Value:
    """First half times sigmoid of the second: one space, which lies in the axis twice."""
    module = call.module
    dim = call.axis(input, module.dim if isinstance(module, nn.GLU) else dim)
    half = call.space(input.axes[dim].size // 2)
    call.same(input.axes[dim], Concat((half, half)), "a gate over two halves that cannot be made equal")
    axes = (*input.axes[:dim], half, *input.axes[dim + 1 :])
    operand = fl.Operand(input, (dim,))
    gated = fl.Mul((fl.Slice(operand, (), half), fl.Pointwise((fl.Slice(operand, (half,), half),))))
    return call.output(axes, fl.Along((half,), gated, fl.Pointwise((call.operand(input, drop=[dim]),), zero=True)))


@rule(torch.addcdiv, "addcdiv")
def add_quotient(call: Call, input: Value, tensor1: Value, tensor2: Value, *, value: Any = 1) -> Value:
    """A sum of one operand and a quotient: input + value * tensor1 / tensor2."""
    quotient = fl.Mul(
        (call.operand(tensor1), fl.Pointwise((call.operand(tensor2),), total=tensor2.bounds.excludes_zero))
    )
    return call.output(_broadcast(call, [input, tensor1, tensor2]), fl.Add((call.operand(input), quotient)))


@rule(torch.lerp, "lerp")
def interpolation(call: Call, input: Value, end: Value, weight: Any) -> Value:
    """Input + weight * (end - input)."""
    operands = [value for value in (input, end, weight) if isinstance(value, Value)]
    if isinstance(weight, Value):
        return call.output(_broadcast(call, operands), fl.Pointwise(tuple(map(call.operand, operands)), zero=True))
    return call.output(_broadcast(call, operands), fl.Add(tuple(map(call.operand, operands))))
