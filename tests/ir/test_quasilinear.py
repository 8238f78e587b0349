"""Quasi-linear functions against the numbers that Python computes for one size after the other."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from graphgrow.ir.bounds import Bounds
from graphgrow.ir.quasilinear import QuasiLinear, computed
from graphgrow.ir.terms import Space


class _Number:
    """Writes down with `computed` what Python's operators are asked for."""

    def __init__(self, law: QuasiLinear | None) -> None:
        self.law = law

    def _of(self, target: Any, *args: Any) -> _Number:
        return _Number(computed(target, tuple(getattr(arg, "law", arg) for arg in args)))

    def __add__(self, other: Any) -> _Number:
        return self._of(operator.add, self, other)

    def __radd__(self, other: Any) -> _Number:
        return self._of(operator.add, other, self)

    def __sub__(self, other: Any) -> _Number:
        return self._of(operator.sub, self, other)

    def __rsub__(self, other: Any) -> _Number:
        return self._of(operator.sub, other, self)

    def __mul__(self, other: Any) -> _Number:
        return self._of(operator.mul, self, other)

    def __rmul__(self, other: Any) -> _Number:
        return self._of(operator.mul, other, self)

    def __truediv__(self, other: Any) -> _Number:
        return self._of(operator.truediv, self, other)

    def __floordiv__(self, other: Any) -> _Number:
        return self._of(operator.floordiv, self, other)

    def __neg__(self) -> _Number:
        return self._of(operator.neg, self)

    def __ceil__(self) -> _Number:
        return self._of(math.ceil, self)

    def __floor__(self) -> _Number:
        return self._of(math.floor, self)


CASES: list[tuple[Callable[[Any], Any], Bounds]] = [
    (lambda n: n, Bounds(1.0)),
    (lambda n: (math.ceil(n / 2) - 1) * 2 + 3 - n, Bounds(1.0, 2.0)),
    (lambda n: ((math.ceil(n / 3) - 1) * 3 + 5 - n) // 2, Bounds(1.0, 2.0)),
    (lambda n: n - 7 * (n // 7), Bounds(0.0, 6.0)),
    (lambda n: 10 - n, Bounds(high=9.0)),
    (lambda n: -(n // 3) + n // 2, Bounds(0.0)),
    (lambda n: math.floor(n * 0.75 + 0.5), Bounds(1.0)),
    (lambda n: n // -2, Bounds(high=-1.0)),
]


@pytest.mark.parametrize(("run", "bounds"), CASES)
def test_it_is_what_python_computes_and_lies_within_its_bounds(run: Callable[[Any], Any], bounds: Bounds) -> None:
    law = run(_Number(QuasiLinear(Space(8)))).law
    assert law is not None
    sizes = range(1, 200)
    assert [law.at(size) for size in sizes] == [Fraction(run(size)) for size in sizes]
    assert law.bounds == bounds


def test_what_is_not_quasi_linear_is_not_known() -> None:
    n, m = QuasiLinear(Space(8)), QuasiLinear(Space(8))
    assert computed(operator.mul, (n, n)) is None
    assert computed(operator.truediv, (3, n)) is None
    assert computed(operator.floordiv, (n, 0)) is None
    assert computed(operator.add, (n, m)) is None  # of another size
    assert computed(operator.add, (n, math.inf)) is None
    assert computed(operator.floordiv, (n, 1009)) is None  # too many offsets
    assert computed(operator.pow, (n, 2)) is None
    assert computed(operator.add, (n, "x")) is None
    assert computed(math.sqrt, (n,)) is None
    assert computed(max, (n, 1, 2)) is None
