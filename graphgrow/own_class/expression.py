"""Sums and products of a model's numbers: where the place of a slice comes from, and which number it asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from graphgrow.own_class.origin import Origin

Number = int | float


@dataclass(frozen=True)
class Expression:
    """A polynomial in numbers that a model keeps.

    Attributes:
        terms: by the numbers that are multiplied, in the order of their names, the factor in front; a term of no number
            is a constant.
    """

    terms: Mapping[tuple[Origin, ...], int]

    @classmethod
    def of(cls, origin: Origin) -> Expression:
        """One number by itself."""
        return cls({(origin,): 1})

    @property
    def origins(self) -> frozenset[Origin]:
        """The numbers that it is made of."""
        return frozenset(itertools.chain(*self.terms))

    def plus(self, other: Expression | int, factor: int = 1) -> Expression:
        """The sum with another, or with so many times another."""
        found = dict(self.terms)
        for names, number in _terms(other).items():
            found[names] = found.get(names, 0) + factor * number
        return Expression({names: number for names, number in found.items() if number})

    def times(self, other: Expression | int) -> Expression:
        """The product with another."""
        found: dict[tuple[Origin, ...], int] = {}
        for (mine, first), (theirs, second) in itertools.product(self.terms.items(), _terms(other).items()):
            names = tuple(sorted((*mine, *theirs), key=str))
            found[names] = found.get(names, 0) + first * second
        return Expression({names: number for names, number in found.items() if number})

    def divided(self, by: int) -> Expression | None:
        """The quotient with a number that divides each factor; None where one has a rest."""
        if by == 0 or any(number % by for number in self.terms.values()):
            return None
        return Expression({names: number // by for names, number in self.terms.items()})

    def value(self, known: Mapping[Origin, Number]) -> Number:
        """What it comes to, where all its numbers are known."""
        return sum(factor * math.prod(known[name] for name in names) for names, factor in self.terms.items())

    def solved(self, value: Number, known: Mapping[Origin, Number]) -> dict[Origin, Number]:
        """The one number that is not known, by its origin, so that the whole has a value.

        Empty where more than one is not known, or it has another power than the first, and where no whole number does.
        """
        unknown = [origin for origin in self.origins if origin not in known]
        if len(unknown) != 1 or any(names.count(unknown[0]) > 1 for names in self.terms):
            return {}
        if self.terms == {(unknown[0],): 1}:
            return {unknown[0]: value}
        without = self.value({**known, unknown[0]: 0})
        slope = self.value({**known, unknown[0]: 1}) - without
        if not isinstance(value, int) or not isinstance(slope, int) or slope == 0 or (value - without) % slope:
            return {}
        return {unknown[0]: (value - without) // slope}


def _terms(given: Expression | int) -> Mapping[tuple[Origin, ...], int]:
    return given.terms if isinstance(given, Expression) else {(): given} if given else {}
