"""Between which numbers the entries of a tensor lie, whatever a model is given and whatever its parameters are.

Functions that are not finite everywhere (log, division, exp) are finite on what is bounded away from their poles, and
so on new units too: these come out of the same operators as the old ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

INFINITE = float("inf")


@dataclass(frozen=True)
class Bounds:
    """The entries are at least `low` and at most `high`, where they are numbers at all.

    A bound that is only approached counts as reached: floating point rounds sigmoid(-1000) to 0.
    """

    low: float = -INFINITE
    high: float = INFINITE

    @property
    def excludes_zero(self) -> bool:
        """Whether no entry is zero."""
        return self.low > 0 or self.high < 0

    @property
    def limited(self) -> bool:
        """Whether neither bound is infinite."""
        return max(-self.low, self.high) < INFINITE

    def __add__(self, other: Bounds) -> Bounds:
        """The bounds of a sum."""
        return Bounds(self.low + other.low, self.high + other.high)

    def __neg__(self) -> Bounds:
        """The bounds of the negative."""
        return Bounds(-self.high, -self.low)

    def __mul__(self, other: Bounds) -> Bounds:
        """The bounds of a product."""
        corners = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Bounds(min(corners), max(corners))

    def __or__(self, other: Bounds) -> Bounds:
        """The bounds of what comes from either."""
        return Bounds(min(self.low, other.low), max(self.high, other.high))

    def __and__(self, other: Bounds) -> Bounds:
        """The bounds of what keeps both."""
        return Bounds(max(self.low, other.low), min(self.high, other.high))

    def __contains__(self, inner: Bounds) -> bool:
        """Whether whatever keeps these other bounds keeps these too."""
        return self.low <= inner.low and inner.high <= self.high

    def within(self, low: float, high: float) -> Bounds:
        """The bounds after a clamp."""
        return Bounds(min(max(self.low, low), high), min(max(self.high, low), high))

    def rounded(self, tiny: float) -> Bounds:
        """What is left in a type whose smallest normal number is `tiny`: anything nearer to zero may become zero."""
        return Bounds(0.0 if 0 < self.low < tiny else self.low, 0.0 if -tiny < self.high < 0 else self.high)

    def inverse(self) -> Bounds:
        """The bounds of 1 / x."""
        if not self.excludes_zero:
            return Bounds(0.0) if self.low >= 0 else Bounds()
        return Bounds(1 / self.high, 1 / self.low)

    def signed(self) -> Bounds:
        """What is left of the bounds after a sum of any number of entries, or a positive factor: the sign."""
        return Bounds(0.0 if self.low >= 0 else -INFINITE, 0.0 if self.high <= 0 else INFINITE)

    def summed(self) -> Bounds:
        """The bounds of a sum of one entry or more: where all are away from zero on one side, it is as far away."""
        low = self.low if self.low >= 0 else -INFINITE
        return Bounds(low, self.high if self.high <= 0 else INFINITE)

    def magnitude(self) -> Bounds:
        """The bounds of the absolute value."""
        nearest = 0.0 if self.low <= 0 <= self.high else min(abs(self.low), abs(self.high))
        return Bounds(nearest, max(abs(self.low), abs(self.high)))

    def power(self, exponent: float) -> Bounds:
        """The bounds of x ** exponent for a number."""
        if exponent < 0:
            return self.power(-exponent).inverse()
        whole = float(exponent).is_integer()
        if whole and exponent % 2 == 0:
            size = self.magnitude()
            return Bounds(_raised(size.low, exponent), _raised(size.high, exponent))
        if self.low >= 0:
            return Bounds(_raised(self.low, exponent), _raised(self.high, exponent))
        return Bounds() if whole else Bounds(0.0)


UNBOUNDED = Bounds()
A_SIZE = Bounds(1.0)
"""Of a size: of an empty axis, no entry is computed."""


def _times(a: float, b: float) -> float:
    """A product in which zero stays zero: what is exactly zero is zero times any finite number."""
    return 0.0 if a == 0 or b == 0 else a * b


def _raised(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return INFINITE
