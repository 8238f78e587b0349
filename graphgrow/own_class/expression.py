"""Sums, products and quotients of a model's numbers: where a size comes from, and which number it asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphgrow.own_class.origin import Origin

Number = int | float


@dataclass(frozen=True)
class Quotient:
    """A division without a rest, which counts as one number.

    Attributes:
        of: what is divided.
        by: by what.
    """

    of: Expression
    by: Expression

    def __str__(self) -> str:
        return f"({self.of}) // ({self.by})"


Factor = Origin | Quotient
Terms = tuple[tuple[tuple[Factor, ...], int], ...]


@dataclass(frozen=True)
class Expression:
    """A polynomial in numbers that a model keeps.

    Attributes:
        terms: the numbers that are multiplied, in the order of their names, and the factor in front; a term of no
            number is a constant.
    """

    terms: Terms

    @classmethod
    def of(cls, factor: Factor) -> Expression:
        """One number by itself."""
        return cls((((factor,), 1),))

    @classmethod
    def _summed(cls, terms: Iterable[tuple[tuple[Factor, ...], int]]) -> Expression:
        found: dict[tuple[Factor, ...], int] = {}
        for names, number in terms:
            found[names] = found.get(names, 0) + number
        return cls(tuple(sorted((item for item in found.items() if item[1]), key=str)))

    def __str__(self) -> str:
        products = [" * ".join(map(str, [*([number] if number != 1 else []), *names])) for names, number in self.terms]
        return " + ".join(text or "1" for text in products) or "0"

    @property
    def factors(self) -> frozenset[Factor]:
        """The numbers that it is made of."""
        return frozenset(itertools.chain(*(names for names, _ in self.terms)))

    def plus(self, other: Expression | int, factor: int = 1) -> Expression:
        """The sum with another, or with so many times another."""
        return self._summed([*self.terms, *((names, factor * number) for names, number in _terms(other))])

    def times(self, other: Expression | int) -> Expression:
        """The product with another."""
        pairs = itertools.product(self.terms, _terms(other))
        return self._summed(
            (tuple(sorted((*mine, *theirs), key=str)), first * second) for (mine, first), (theirs, second) in pairs
        )

    def divided(self, by: Expression | int) -> Expression:
        """The quotient with another, where there is no rest."""
        if isinstance(by, int) and not any(number % by for _, number in self.terms):
            return Expression(tuple((names, number // by) for names, number in self.terms))
        return Expression.of(Quotient(self, by if isinstance(by, Expression) else Expression(_terms(by))))

    def value(self, known: Mapping[Factor, Number]) -> Number:
        """What it comes to, where all its numbers are known."""
        return sum(factor * math.prod(known[name] for name in names) for names, factor in self.terms)

    def solved(self, value: Number, known: Mapping[Factor, Number]) -> dict[Factor, Number]:
        """The one number that is not known, so that the whole has a value.

        Empty where more than one is not known, or it has another power than the first, and where no whole number does.
        """
        unknown = [factor for factor in self.factors if factor not in known]
        if len(unknown) != 1 or any(names.count(unknown[0]) > 1 for names, _ in self.terms):
            return {}
        if self == Expression.of(unknown[0]):
            return {unknown[0]: value}
        without = self.value({**known, unknown[0]: 0})
        slope = self.value({**known, unknown[0]: 1}) - without
        if not isinstance(value, int) or not isinstance(slope, int) or slope == 0 or (value - without) % slope:
            return {}
        return {unknown[0]: (value - without) // slope}


def _terms(given: Expression | int) -> Terms:
    return given.terms if isinstance(given, Expression) else (((), given),) if given else ()
