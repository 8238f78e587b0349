"""Elementwise operators: every activation, arithmetic, comparisons."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from graphgrow.layers import Blend, ByMode, Choice, Gate, Zeros
from tests.ops.probe import Draw, Probe, normal_tensor, op
from tests.ops.square import Case
from tests.ops.squares import squares

# What becomes of the fills of an operand that each function of one unit carries.
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
FINITE = "free>free zero>free mean>free copy>copy"
PARTIAL = "copy>copy"
LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
SHIFTED = "free>free zero>free mean>mean copy>copy"
SUM = "free>free zero>free|zero mean>free|mean copy>copy share>share"
ADDED_PRODUCT = "free>free zero>free|zero mean>free copy>copy share>share"
PRODUCT = "free>free|zero zero>zero mean>free|zero copy>copy|share share>share"
EXTREME = "free>free zero>free|zero mean>free copy>copy"


def _every(table: str) -> dict[str, str]:
    return {"x.0": table, "x.1": table}


def unary(target: Any, table: str, *rest: Any, positive: bool = False, label: str = "") -> Case:
    """f(x): a module class, a function or a method."""

    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), draw(2, 4))
        x = x.abs() + 0.5 if positive else x
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(*rest)})
        return Probe(lambda m: op(target, m.x.clone() if _inplace(target) else m.x, *rest), {"x": x})

    return Case((target,), build, _every(table), label)


# Operators in place that a capture records as others.
RECORDED: dict[Any, tuple[Any, ...]] = {
    operator.iadd: (operator.add,), operator.isub: (operator.sub,), operator.imul: (operator.mul,),
    "__iadd__": (operator.add,), "__imul__": (operator.mul,),
}  # fmt: skip


def binary(target: Any, table: str, label: str = "", **options: Any) -> Case:
    """f(x, y) of equal shapes, y away from zero."""

    def build(draw: Draw) -> nn.Module:
        x, y = _pair(draw)
        y = y.sign() * (y.abs() + 0.5)
        return Probe(lambda m: op(target, m.x.clone() if _inplace(target) else m.x, m.y, **options), {"x": x, "y": y})

    return Case((target, *RECORDED.get(target, ())), build, _every(table), label)


def logic(target: Any, operands: int) -> Case:
    """Logic on comparisons of x and y with numbers."""

    def build(draw: Draw) -> nn.Module:
        x, y = _pair(draw)
        if operands == 1:
            return Probe(lambda m: op(target, m.x > 0.1), {"x": x})
        return Probe(lambda m: op(target, m.x > 0.1, m.y > -0.2), {"x": x, "y": y})

    return Case((target,), build, _every(FINITE))


def _pair(draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    sizes = draw(2, 4), draw(2, 4)
    return normal_tensor(draw, *sizes), normal_tensor(draw, *sizes)


def _inplace(target: Any) -> bool:
    name = target if isinstance(target, str) else target.__name__
    in_place_operators = (operator.iadd, operator.isub, operator.imul)
    return target in in_place_operators or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


ZERO_MODULES = [
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Hardtanh,
    nn.Hardswish, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.RReLU,
]  # fmt: skip
ZERO_FUNCTIONS: list[Any] = [
    F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.tanh, F.elu, F.selu, F.celu, F.mish, F.hardtanh, F.hardswish,
    F.softsign, torch.relu, torch.tanh, torch.sin, torch.abs, torch.square, torch.relu_, F.relu_, torch.erf,
    torch.sign, "relu", "relu_", "tanh", "sin", "abs", "square", "erf", "sign", F.tanhshrink,
    F.softshrink, F.hardshrink, torch.atan, "atan", torch.arctan, "arctan", torch.asinh, "asinh", torch.round, "round",
    torch.ceil, "ceil", torch.floor, "floor", torch.trunc, "trunc", torch.frac, "frac", torch.nan_to_num, "nan_to_num",
    "tanh_", operator.abs, torch.sgn, "sgn",
]  # fmt: skip
FINITE_FUNCTIONS: list[Any] = [
    nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Softplus, F.sigmoid, F.hardsigmoid, F.logsigmoid, F.softplus,
    torch.sigmoid, torch.cos, "sigmoid", "cos", "sigmoid_", torch.erfc, "erfc", torch.isnan, torch.isinf,
    "isnan", "isinf", "isfinite",
    torch.isfinite, torch.sinc, "sinc", torch.signbit, "signbit", torch.isposinf, "isposinf", torch.isneginf,
    "isneginf",
]  # fmt: skip
PARTIAL_FUNCTIONS: list[Any] = [
    torch.log,
    torch.log2,
    torch.log10,
    torch.sqrt,
    torch.rsqrt,
    torch.reciprocal,
    "log",
    "log2",
    "log10",
    "sqrt",
    "rsqrt",
    "reciprocal",
]
GROWING: list[Any] = [torch.exp, torch.exp2, torch.cosh, "exp", "exp2", "cosh"]
GROWING_FROM_ZERO: list[Any] = [torch.log1p, torch.sinh, torch.tan, "log1p", "sinh", "tan", torch.asin, "asin",
                                torch.arcsin, "arcsin", torch.atanh, "atanh", torch.arctanh, "arctanh", torch.expm1,
                                "expm1"]  # fmt: skip
LINEAR_FUNCTIONS: list[Any] = [
    nn.Identity, operator.pos, torch.positive, "positive", operator.neg, torch.neg, "neg", "contiguous", "clone",
    "double", torch.clone, "detach", torch.deg2rad, "deg2rad", torch.rad2deg, "rad2deg",
]  # fmt: skip
SUMS: list[Any] = [
    operator.add, operator.sub, operator.iadd, operator.isub, torch.add, torch.sub, torch.rsub, "add", "add_", "sub",
    "sub_", "__add__", "__radd__", "__iadd__",
]  # fmt: skip
PRODUCTS: list[Any] = [
    operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__", "__rmul__", "__imul__", torch.multiply,
]  # fmt: skip
RESTS: list[Any] = [operator.mod, torch.remainder, torch.fmod, "remainder", "fmod", operator.floordiv,
                    torch.floor_divide, "floor_divide"]  # fmt: skip
QUOTIENTS: list[Any] = [operator.truediv, torch.div, torch.true_divide, "div", "div_", "__truediv__"]
COMPARISONS: list[Any] = [
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, torch.eq, torch.ne, torch.lt,
    torch.le, torch.gt, torch.ge, "eq", "ne", "lt", "le", "gt", "ge",
]  # fmt: skip


def _prelu(draw: Draw) -> nn.Module:
    width = draw(2, 4)
    slopes = nn.PReLU(width)
    slopes.weight.data.uniform_(-1, 1)
    return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, width, 3)}, {"op": slopes})


def _slopes(target: Any) -> Callable[[Draw], nn.Module]:
    """A slope for each channel, as a function."""

    def build(draw: Draw) -> nn.Module:
        width = draw(2, 4)
        sources = {"x": normal_tensor(draw, 2, width, 3), "y": normal_tensor(draw, width)}
        return Probe(lambda m: op(target, m.x, m.y), sources)

    return build


def _one_slope(draw: Draw) -> nn.Module:
    return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, 3)}, {"op": nn.PReLU()})


def _learned_factor(draw: Draw) -> nn.Module:
    """A gate that has opened a little."""
    gate = Gate()
    gate.gate.data.fill_(0.375)
    return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, draw(2, 4), draw(2, 4))}, {"op": gate})


def _passage(old: nn.Module, new: nn.Module) -> Callable[[Draw], nn.Module]:
    """A blend that is on its way."""

    def build(draw: Draw) -> nn.Module:
        blend = Blend(copy.deepcopy(old), copy.deepcopy(new))
        blend.s.data.fill_(0.375)
        return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, draw(2, 4), 3)}, {"op": blend})

    return build


def _gate(draw: Draw) -> nn.Module:
    """(a, b, c) times (b, 1): one factor for each unit of the middle axis."""
    a, b, c = draw(2, 4), draw(2, 4), draw(2, 4)
    return Probe(lambda m: m.x * m.y, {"x": normal_tensor(draw, a, b, c), "y": normal_tensor(draw, b, 1)})


def _bias(draw: Draw) -> nn.Module:
    """(a, b) plus (b,)."""
    a, b = draw(2, 4), draw(2, 4)
    return Probe(lambda m: m.x + m.y, {"x": normal_tensor(draw, a, b), "y": normal_tensor(draw, b)})


def _add_product(target: Any) -> Callable[[Draw], nn.Module]:
    """x (a, b) plus y (b,) times z (b,): a layer scale beside its stream."""

    def build(draw: Draw) -> nn.Module:
        a, b = draw(2, 4), draw(2, 4)
        sources = {"x": normal_tensor(draw, a, b), "y": normal_tensor(draw, b), "z": normal_tensor(draw, b)}
        return Probe(lambda m: op(target, m.x.clone() if _inplace(target) else m.x, m.y, m.z, value=0.5), sources)

    return build


def _assertion(draw: Draw) -> nn.Module:
    def run(m: Any) -> Any:
        torch._assert(m.x.shape[1] > 0, "an assertion of the user's model")
        return m.x.tanh()

    return Probe(run, {"x": normal_tensor(draw, draw(2, 4), draw(2, 4))})


def _type_as(draw: Draw) -> nn.Module:
    return Probe(lambda m: op("type_as", m.x, m.y), {"x": normal_tensor(draw, 2, 3), "y": normal_tensor(draw, 1)})


def _quotient_added(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        a, b = draw(2, 4), draw(2, 4)
        x, y, z = (normal_tensor(draw, a, b) for _ in range(3))
        return Probe(lambda m: op(target, m.x, m.y, m.z, value=0.5), {"x": x, "y": y, "z": z.abs() + 0.5})

    return build


def _mixed(target: Any, by_tensor: bool) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x, y = _pair(draw)
        sources = {"x": x, "y": y, **({"z": x.sigmoid()} if by_tensor else {})}
        return Probe(lambda m: op(target, m.x, m.y, m.z if by_tensor else 0.25), sources)

    return build


def _choice(draw: Draw) -> nn.Module:
    """A choice that is half open, so that every value has a share."""
    x, y = _pair(draw)
    module = Choice(("one", "other"))
    with torch.no_grad():
        module.alpha.copy_(torch.tensor([0.3, -0.4]))
        module.opened.fill_(0.5)
    return Probe(lambda m: m.op(m.x, m.y), {"x": x, "y": y}, {"op": module})


def _by_mode(draw: Draw) -> nn.Module:
    x, y = _pair(draw)
    return Probe(lambda m: m.op(m.x, m.y), {"x": x, "y": y}, {"op": ByMode()})


def _glu(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), 2 * draw(2, 3))
        if target is nn.GLU:
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": nn.GLU()})
        return Probe(lambda m: op(F.glu, m.x, dim=1), {"x": x})

    return build


CASES = [
    unary(Zeros, ZERO_KEEPING),
    Case((Choice,), _choice, _every(SUM)),
    Case((ByMode,), _by_mode, _every(SUM)),
    *(unary(target, ZERO_KEEPING) for target in [*ZERO_MODULES, *ZERO_FUNCTIONS]),
    *(unary(target, FINITE) for target in FINITE_FUNCTIONS),
    *(unary(target, PARTIAL, positive=True) for target in PARTIAL_FUNCTIONS),
    *(unary(target, "zero>free copy>copy") for target in GROWING),
    *(unary(target, PARTIAL) for target in (torch.acos, "acos", torch.arccos, "arccos")),
    *(unary(target, PARTIAL, positive=True) for target in (torch.acosh, "acosh")),
    *(unary(target, "zero>zero copy>copy", positive=True) for target in GROWING_FROM_ZERO),
    *(unary(target, FINITE, 0.1, 1.0) for target in (nn.Threshold, F.threshold)),
    *(unary(target, LINEAR) for target in LINEAR_FUNCTIONS),
    *(unary(target, LINEAR, torch.float64) for target in ("to", "type")),
    *(unary(target, LINEAR) for target in (torch.as_tensor, torch.asarray)),
    unary("cpu", LINEAR),
    *(unary(target, ZERO_KEEPING, torch.float32, label="rounded") for target in ("to", "type")),
    *(unary(target, ZERO_KEEPING, label="rounded") for target in ("float", "bfloat16")),
    unary("half", "zero>zero copy>copy", label="rounded"),
    *(unary(target, ZERO_KEEPING, label="whole") for target in ("long", "int", "short", "char", "byte")),
    Case(("type_as",), _type_as, {**_every(LINEAR), "y.0": "free>- zero>- mean>- copy>- share>-"}),
    unary("requires_grad_", LINEAR, False),
    *(unary(target, ZERO_KEEPING, -0.5, 0.5)
      for target in (torch.clamp, "clamp", torch.clip, "clip", "clamp_", torch.clamp_, "clip_")),
    unary(nn.Hardtanh, FINITE, 0.5, 2.0, label="limits-without-zero"),
    unary(F.hardtanh, FINITE, 0.5, 2.0, label="limits-without-zero"),
    unary("clamp", FINITE, 0.25, label="away-from-zero"),
    unary(torch.clamp, FINITE, torch.tensor(-0.5), torch.tensor(0.5), label="held"),
    *(unary(target, SHIFTED, 1.5, label="number")
      for target in (operator.add, torch.sub, torch.rsub, "add_", "__radd__")),
    *(unary(target, LINEAR, 1.5, label="number") for target in (operator.mul, "mul", torch.div, operator.truediv)),
    *(unary(target, ZERO_KEEPING, 2)
      for target in (torch.pow, operator.pow, "pow", "__pow__", torch.float_power, "float_power")),
    *(unary(target, PARTIAL, 0.5, positive=True, label="root") for target in (torch.pow, operator.pow)),
    *(binary(target, SUM) for target in SUMS),
    binary(torch.add, SUM, "alpha", alpha=0.5),
    *(binary(target, PRODUCT) for target in PRODUCTS),
    *(binary(target, "copy>copy share>share") for target in QUOTIENTS),
    binary(torch.div, PARTIAL, "rounded", rounding_mode="floor"),
    binary(torch.pow, PARTIAL, "by-a-tensor"),
    *(binary(target, EXTREME)
      for target in (torch.maximum, torch.minimum, torch.fmax, torch.fmin, "maximum", "minimum")),
    *(binary(target, FINITE) for target in [*COMPARISONS, torch.isclose, torch.logaddexp, "logaddexp",
                                         torch.logaddexp2, "logaddexp2"]),
    *(unary(target, FINITE, 0.5) for target in (torch.clamp_min, "clamp_min", "clamp_min_")),
    *(unary(target, ZERO_KEEPING, 0.5) for target in (torch.clamp_max, "clamp_max", "clamp_max_")),
    *(unary(target, ZERO_KEEPING, 0.75) for target in RESTS),
    *(binary(target, PARTIAL) for target in RESTS),
    *(logic(target, 2) for target in (operator.and_, operator.or_, operator.xor, torch.logical_and,
                                           torch.logical_or, torch.logical_xor)),
    *(logic(target, 1) for target in (operator.invert, torch.logical_not, "logical_not", "bool")),
    Case((nn.PReLU,), _prelu, {"x.0": FINITE, "x.1": FINITE, "x.2": FINITE}),
    Case((nn.PReLU,), _one_slope, _every(FINITE), "one-slope"),
    *(Case((target,), _slopes(target), {"x.0": FINITE, "x.1": FINITE, "x.2": FINITE})
      for target in (F.prelu, torch.prelu, "prelu")),
    Case((Gate,), _learned_factor, _every(LINEAR)),
    Case((Blend,), _passage(nn.ReLU(), nn.GELU()), _every(ZERO_KEEPING)),
    Case((Blend,), _passage(nn.PReLU(), nn.Identity()), _every(ZERO_KEEPING), "prelu-identity"),
    Case((Blend,), _passage(nn.Sigmoid(), nn.Tanh()), _every(FINITE), "old-bounded"),
    Case((Blend,), _passage(nn.SiLU(), nn.Softplus()), _every(FINITE), "new-bounded"),
    Case((Blend,), _passage(nn.Hardtanh(0.5, 2.0), nn.ReLU()), _every(FINITE), "limits-without-zero"),
    Case((Blend,), _passage(nn.PReLU(3), nn.ReLU()), {}, "slopes-decline"),
    Case((Blend,), _passage(nn.ReLU(), nn.Softmax(-1)), {}, "softmax-declines"),
    Case((operator.mul,), _gate, {"x.0": LINEAR, "x.1": PRODUCT, "x.2": LINEAR}, "broadcast"),
    Case((operator.add,), _bias, {"x.0": SHIFTED, "x.1": SUM}, "broadcast"),
    *(
        Case((target,), _add_product(target), {"x.0": SHIFTED, "x.1": ADDED_PRODUCT})
        for target in (torch.addcmul, "addcmul", "addcmul_")
    ),
    Case(("tanh",), _assertion, _every(ZERO_KEEPING), "behind-an-assertion"),
    *(Case((target,), _glu(target), {"x.0": ZERO_KEEPING, "x.1:0": "free>free zero>zero mean>free copy>copy"})
      for target in (nn.GLU, F.glu)),
    *(Case((target,), _quotient_added(target), _every("copy>copy share>share"))
      for target in (torch.addcdiv, "addcdiv")),
    *(Case((target,), _mixed(target, False), _every("free>free zero>free|zero mean>free|mean copy>copy share>share"))
      for target in (torch.lerp, "lerp")),
    Case((torch.lerp,), _mixed(torch.lerp, True), _every("free>free zero>free|zero mean>free copy>copy"), "by-tensor"),
]  # fmt: skip


test_square = squares(CASES, 1)
