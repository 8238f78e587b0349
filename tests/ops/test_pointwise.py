"""Elementwise operators: every activation, arithmetic, comparisons."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.effort import examples
from tests.ops.square import Case, Draw, Probe, drawer, normal_tensor

# What becomes of the fills of an operand that each function of one unit carries.
ZERO_KEEPING = "free>free zero>zero mean>free copy>copy"
FINITE = "free>free zero>free mean>free copy>copy"
PARTIAL = "copy>copy"
LINEAR = "free>free zero>zero mean>mean copy>copy share>share"
SHIFTED = "free>free zero>free mean>mean copy>copy"
SUM = "free>free zero>free|zero mean>free|mean copy>copy share>share"
PRODUCT = "free>free|zero zero>zero mean>free|zero copy>copy|share share>share"
TWO = "free>free zero>free mean>free copy>copy"
TWO_ZERO = "free>free zero>free|zero mean>free copy>copy"


def _sizes(draw: Draw, rank: int = 3) -> list[int]:
    return [draw(2, 4) for _ in range(rank)]


def _every(table: str, *axes: int) -> dict[str, str]:
    return {f"x.{axis}": table for axis in axes or (0, 1, 2)}


def _caller(target: Any) -> Callable[..., Any]:
    """The target as a function of the probe's parameters: a method by its name."""
    return (lambda x, *rest: getattr(x, target)(*rest)) if isinstance(target, str) else target


def unary(target: Any, table: str, *rest: Any, positive: bool = False, **options: Any) -> Case:
    """f(x): a module class, a function or a method."""

    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, *_sizes(draw))
        x = x.abs() + 0.5 if positive else x
        if isinstance(target, type):
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": target(*rest, **options)})
        call = _caller(target)
        inplace = isinstance(target, str) and target.endswith("_") and not target.endswith("__")
        inplace = inplace or getattr(target, "__name__", "").endswith("_")
        return Probe(lambda m: call(m.x.clone() if inplace else m.x, *rest, **options), {"x": x})

    return Case((target,), build, _every(table))


def binary(target: Any, table: str, second: bool = True, low: float | None = None, **options: Any) -> Case:
    """f(x, y) of equal shapes, or f(x, number)."""

    def build(draw: Draw) -> nn.Module:
        sizes = _sizes(draw)
        x, y = normal_tensor(draw, *sizes), normal_tensor(draw, *sizes)
        y = y if low is None else y.abs() + low
        if target is operator.imul or target is operator.iadd or target is operator.isub or _inplace(target):
            call = _caller(target)
            return Probe(lambda m: call(m.x.clone(), m.y if second else 1.5), {"x": x, "y": y} if second else {"x": x})
        call = _caller(target)
        sources = {"x": x, "y": y} if second else {"x": x}
        return Probe(lambda m: call(m.x, m.y if second else 1.5, **options), sources)

    return Case((target,), build, _every(table), "two" if second else "number")


def _inplace(target: Any) -> bool:
    return isinstance(target, str) and target.endswith("_")


def logic(target: Any, operands: int) -> Case:
    """Logic on comparisons of x and y with a number."""

    def build(draw: Draw) -> nn.Module:
        sizes = _sizes(draw)
        call = _caller(target)
        sources = {"x": normal_tensor(draw, *sizes), "y": normal_tensor(draw, *sizes)}
        if operands == 1:
            return Probe(lambda m: call(m.x > 0.1), {"x": sources["x"]})
        return Probe(lambda m: call(m.x > 0.1, m.y > -0.2), sources)

    return Case((target,), build, _every(FINITE if operands == 1 else TWO))


ZERO_MODULES = [
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Hardtanh,
    nn.Hardswish, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.RReLU,
]  # fmt: skip
ZERO_FUNCTIONS: list[Any] = [
    F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.tanh, F.elu, F.selu, F.celu, F.mish, F.hardtanh, F.hardswish,
    F.softsign, torch.relu, torch.tanh, torch.sin, torch.abs, torch.square, torch.relu_, F.relu_, torch.erf,
    torch.sign, torch.expm1, "relu", "relu_", "tanh", "sin", "abs", "square", "erf", "sign",
]  # fmt: skip
FINITE_FUNCTIONS: list[Any] = [
    nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Softplus, F.sigmoid, F.hardsigmoid, F.logsigmoid, F.softplus,
    torch.sigmoid, torch.cos, "sigmoid", "cos", "softplus",
]  # fmt: skip
PARTIAL_FUNCTIONS: list[Any] = [
    torch.exp, torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.log1p, "exp", "log", "sqrt", "rsqrt",
    "reciprocal", "log1p",
]  # fmt: skip
LINEAR_FUNCTIONS: list[Any] = [
    nn.Identity, operator.neg, torch.neg, "neg", "contiguous", "clone", "double", torch.clone, "float", "detach",
]  # fmt: skip
COMPARISONS: list[Any] = [
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, torch.eq, torch.ne, torch.lt,
    torch.le, torch.gt, torch.ge, "eq", "ne", "lt", "le", "gt", "ge",
]  # fmt: skip


def _prelu(draw: Draw) -> nn.Module:
    width = draw(2, 4)
    slopes = nn.PReLU(width)
    slopes.weight.data.uniform_(-1, 1)
    return Probe(lambda m: m.op(m.x), {"x": normal_tensor(draw, 2, width, 3)}, {"op": slopes})


def _broadcast(draw: Draw) -> nn.Module:
    """(a, b, c) times (b, 1): a gate for each unit of the middle axis."""
    a, b, c = _sizes(draw)
    sources = {"x": normal_tensor(draw, a, b, c), "y": normal_tensor(draw, b, 1)}
    return Probe(lambda m: m.x * m.y, sources)


def _bias(draw: Draw) -> nn.Module:
    """(a, b, c) plus (c,)."""
    a, b, c = _sizes(draw)
    return Probe(lambda m: m.x + m.y, {"x": normal_tensor(draw, a, b, c), "y": normal_tensor(draw, c)})


def _mask(draw: Draw, target: Any) -> nn.Module:
    sizes = _sizes(draw)
    call = _caller(target)
    x, y = normal_tensor(draw, *sizes), normal_tensor(draw, *sizes)
    if target in (torch.where, "where"):
        if target == "where":
            return Probe(lambda m: m.x.where(m.y > 0, m.z), {"x": x, "y": y, "z": normal_tensor(draw, *sizes)})
        return Probe(lambda m: torch.where(m.y > 0, m.x, m.z), {"x": x, "y": y, "z": normal_tensor(draw, *sizes)})
    return Probe(lambda m: call(m.x.clone(), m.y > 0, 0.25), {"x": x, "y": y})


def masks(target: Any) -> Case:
    """A choice by the sign of another operand."""
    return Case((target,), lambda draw: _mask(draw, target), _every(TWO))


def _assert(draw: Draw) -> nn.Module:
    def run(m: Any) -> Any:
        torch._assert(m.x.shape[1] > 0, "an assertion of the user's model")
        return m.x.tanh()

    return Probe(run, {"x": normal_tensor(draw, *_sizes(draw))})


def _glu(target: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        x = normal_tensor(draw, draw(2, 4), 2 * draw(2, 3))
        if target is nn.GLU:
            return Probe(lambda m: m.op(m.x), {"x": x}, {"op": nn.GLU()})
        return Probe(lambda m: F.glu(m.x, dim=1), {"x": x})

    return build


CASES = [
    *(unary(target, ZERO_KEEPING) for target in [*ZERO_MODULES, *ZERO_FUNCTIONS]),
    *(unary(target, FINITE) for target in FINITE_FUNCTIONS if target != "softplus"),
    *(unary(target, PARTIAL, positive=True) for target in PARTIAL_FUNCTIONS),
    *(unary(target, LINEAR) for target in LINEAR_FUNCTIONS if target != "float"),
    unary("to", LINEAR, torch.float64),
    unary("type", LINEAR, torch.float64),
    *(unary(target, ZERO_KEEPING, -0.5, 0.5) for target in (torch.clamp, "clamp", torch.clip, "clip")),
    Case((torch.clamp,), lambda d: Probe(lambda m: m.x.sigmoid().clamp(min=0.6), {"x": normal_tensor(d, 2, 3)}),
         {}, "away from zero") if False else
    Case(("clamp",), lambda d: Probe(lambda m: m.x.clamp(min=0.6), {"x": normal_tensor(d, 2, 3)}),
         {"x.0": FINITE, "x.1": FINITE}, "away-from-zero"),
    Case((nn.PReLU,), _prelu, {"x.0": FINITE, "x.2": FINITE, "x.1": "free>free zero>free mean>free copy>copy"}),
    Case((nn.PReLU,), lambda d: Probe(lambda m: m.op(m.x), {"x": normal_tensor(d, 2, 3)}, {"op": nn.PReLU()}),
         {"x.0": FINITE, "x.1": FINITE}, "one-slope"),
    *(binary(t, SUM) for t in (operator.add, operator.sub, operator.iadd, operator.isub, torch.add, torch.sub,
                               "add", "add_", "sub", "sub_", "__add__", "__radd__", "__iadd__")),
    *(binary(t, SHIFTED, second=False) for t in (operator.add, torch.sub, "add_", "__radd__")),
    binary(torch.add, SUM, alpha=0.5),
    *(binary(t, PRODUCT) for t in (operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__", "__rmul__",
                                   "__imul__", torch.multiply)),
    *(binary(t, LINEAR, second=False) for t in (operator.mul, "mul", torch.multiply)),
    *(binary(t, "copy>copy share>share", low=0.5) for t in (operator.truediv, torch.div, torch.true_divide, "div",
                                                           "div_", "__truediv__")),
    *(binary(t, LINEAR, second=False) for t in (operator.truediv, "div")),
    *(unary(t, ZERO_KEEPING, 2) for t in (torch.pow, operator.pow, "pow", "__pow__")),
    *(unary(t, PARTIAL, 0.5, positive=True) for t in (torch.pow, operator.pow)),
    *(binary(t, TWO_ZERO) for t in (torch.maximum, torch.minimum, "maximum", "minimum")),
    *map(masks, (torch.where, "where", "masked_fill", "masked_fill_", torch.masked_fill)),
    *(binary(t, TWO) for t in COMPARISONS),
    *(logic(t, 2) for t in (operator.and_, operator.or_, torch.logical_and, torch.logical_or)),
    *(logic(t, 1) for t in (operator.invert, torch.logical_not, "logical_not", "bool")),
    Case((operator.mul,), _broadcast, {"x.0": LINEAR, "x.1": PRODUCT, "x.2": LINEAR}, "broadcast"),
    Case((operator.add,), _bias, {"x.0": SHIFTED, "x.1": SHIFTED, "x.2": SUM}, "broadcast"),
    Case((nn.GLU,), _glu(nn.GLU), {"x.0": FINITE}),
    Case((F.glu,), _glu(F.glu), {"x.0": FINITE}),
    Case(("tanh",), _assert, _every(ZERO_KEEPING), "behind-an-assertion"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@examples(3)
@given(data=st.data())
def test_square(case: Case, data: st.DataObject) -> None:
    case.check(drawer(data))
