"""Arithmetic of bounds: whatever numbers keep to the bounds of the operands, the result keeps to its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.ir.bounds import Bounds
from tests.effort import examples

NUMBERS = st.floats(-100, 100).map(lambda number: 0.0 if abs(number) < 1e-3 else number)
ENDS = st.one_of(NUMBERS, st.sampled_from([0.0, 1.0, -1.0, math.inf, -math.inf]))


@st.composite
def within(draw: st.DrawFn) -> tuple[Bounds, float]:
    """Some bounds, and a number between them."""
    number = draw(NUMBERS)
    first, second = draw(ENDS), draw(ENDS)
    return Bounds(min(first, number), max(second, number)), number


def _holds(bounds: Bounds, number: float) -> bool:
    slack = 1e-12 * (1 + abs(number))
    return bounds.low - slack <= number <= bounds.high + slack


@examples(200)
@given(a=within(), b=within())
def test_two_operands(a: tuple[Bounds, float], b: tuple[Bounds, float]) -> None:
    (left, x), (right, y) = a, b
    assert _holds(left + right, x + y)
    assert _holds(left + -right, x - y)
    assert _holds(left * right, x * y)
    assert _holds(left | right, x)
    assert _holds(left | right, y)
    assert _holds((left * right).signed(), 5 * x * y)
    assert _holds((left | right).summed(), x + y)
    assert _holds(left.summed(), x)
    if _holds(right, x):
        assert _holds(left & right, x)


@examples(200)
@given(
    a=within(),
    exponent=st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, -0.5, -1.0, -2.0]),
    limits=st.tuples(NUMBERS, NUMBERS),
)
def test_one_operand(a: tuple[Bounds, float], exponent: float, limits: tuple[float, float]) -> None:
    bounds, x = a
    assert _holds(-bounds, -x)
    assert _holds(bounds.magnitude(), abs(x))
    low, high = sorted(limits)
    assert _holds(bounds.within(low, high), min(max(x, low), high))
    assert _holds(bounds.rounded(0.01), 0.0 if abs(x) < 0.01 else x)
    if x != 0:
        assert _holds(bounds.inverse(), 1 / x)
    if x > 0 or (float(exponent).is_integer() and x != 0):
        assert _holds(bounds.power(exponent), x**exponent)
    assert not (bounds.excludes_zero and x == 0)


@pytest.mark.parametrize(
    ("compute", "wanted"),
    [
        (lambda: Bounds(0.0) + Bounds(1e-6, 1e-6), Bounds(1e-6)),
        (lambda: -Bounds(0.0) * Bounds(0.0), Bounds(high=0.0)),
        (lambda: Bounds(2.0, 4.0).inverse(), Bounds(0.25, 0.5)),
        (lambda: Bounds(-3.0, 2.0).power(2), Bounds(0.0, 9.0)),
        (lambda: (Bounds(0.0) + Bounds(1e-9, 1e-9)).rounded(6e-5), Bounds(0.0)),
    ],
)
def test_by_hand(compute: Callable[[], Bounds], wanted: Bounds) -> None:
    found = compute()
    assert (found.low, found.high) == (wanted.low, wanted.high)
