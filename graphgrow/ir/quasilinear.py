"""Numbers computed from one size, over all sizes at once: those of padding that keeps every stride's last window, say.

A quasi-linear function of a whole number n is slope * n plus one of finitely many offsets, which come by turns. Sums,
multiples and roundings of such functions are quasi-linear again (Ehrhart's quasi-polynomials of degree 1), so that
(ceil(n / 2) - 1) * 2 + 3 - n is known to be 1 or 2, where intervals, which forget that n is n, would know nothing.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from graphgrow.ir.bounds import Bounds
from graphgrow.ir.terms import Term, normal

_MOST = 512  # offsets; strides are far fewer


@dataclass(frozen=True)
class QuasiLinear:
    """slope * n + offsets[n % len(offsets)], of a size n that is at least 1.

    Attributes:
        term: whose size n is.
        slope: what each step of n adds in the long run.
        offsets: what is added besides, by the remainder of n.
    """

    term: Term
    slope: Fraction = Fraction(1)
    offsets: tuple[Fraction, ...] = (Fraction(0),)

    def at(self, size: int) -> Fraction:
        """The number for one size."""
        return self.slope * size + self.offsets[size % len(self.offsets)]

    @property
    def bounds(self) -> Bounds:
        """Between which numbers it lies for all sizes."""
        first = [float(self.at(size)) for size in range(1, len(self.offsets) + 1)]
        return Bounds(min(first) if self.slope >= 0 else -math.inf, max(first) if self.slope <= 0 else math.inf)

    def plus(self, other: QuasiLinear | Fraction) -> QuasiLinear | None:
        """The sum with another of the same size, or with a number; None where it is of another size."""
        if isinstance(other, Fraction):
            return QuasiLinear(self.term, self.slope, tuple(offset + other for offset in self.offsets))
        period = math.lcm(len(self.offsets), len(other.offsets))
        if normal(self.term) != normal(other.term) or period > _MOST:
            return None
        return QuasiLinear(self.term, self.slope + other.slope, tuple(
            self.offsets[n % len(self.offsets)] + other.offsets[n % len(other.offsets)] for n in range(period)
        ))  # fmt: skip

    def times(self, factor: Fraction) -> QuasiLinear:
        """A multiple."""
        return QuasiLinear(self.term, self.slope * factor, tuple(offset * factor for offset in self.offsets))

    def rounded(self, to_whole: Callable[[Fraction], int]) -> QuasiLinear | None:
        """Rounded to whole numbers by `math.floor` or `math.ceil`."""
        period = math.lcm(len(self.offsets), self.slope.denominator)
        if period > _MOST:
            return None
        return QuasiLinear(self.term, self.slope, tuple(to_whole(self.at(n)) - self.slope * n for n in range(period)))


def computed(target: Any, args: tuple[Any, ...]) -> QuasiLinear | None:
    """What an operator on plain numbers makes of quasi-linear ones and constants; None where it is something else.

    Args:
        target: the operator.
        args: `QuasiLinear`, numbers, or anything of which nothing is known.
    """
    left, right = (*map(_exact, args), None)[:2]
    one = left if isinstance(left, QuasiLinear) else right if isinstance(right, QuasiLinear) else None
    if one is None or len(args) > 2:
        return None
    if len(args) == 1:
        return _of_one(target, one)
    if left is None or right is None:
        return None
    if target in (operator.add, operator.sub):
        return _sum(left, _negative(right) if target is operator.sub else right)
    factor = right if one is left else left
    if not isinstance(factor, Fraction):
        return None
    if target is operator.mul:
        return one.times(factor)
    if target in (operator.truediv, operator.floordiv) and one is left and factor:
        quotient = one.times(1 / factor)
        return quotient if target is operator.truediv else quotient.rounded(math.floor)
    return None


def _of_one(target: Any, number: QuasiLinear) -> QuasiLinear | None:
    if target is operator.neg:
        return number.times(Fraction(-1))
    return number.rounded(target) if target in (math.floor, math.ceil) else None


def _exact(number: Any) -> QuasiLinear | Fraction | None:
    if isinstance(number, QuasiLinear):
        return number
    plain = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
    return Fraction(number) if plain else None


def _negative(number: QuasiLinear | Fraction) -> QuasiLinear | Fraction:
    return -number if isinstance(number, Fraction) else number.times(Fraction(-1))


def _sum(left: QuasiLinear | Fraction, right: QuasiLinear | Fraction) -> QuasiLinear | None:
    if isinstance(left, QuasiLinear):
        return left.plus(right)
    return right.plus(left) if isinstance(right, QuasiLinear) else None
