"""Sums and products of a model's numbers say which of them has to change."""

from __future__ import annotations

from typing import Any

import pytest

from graphgrow.own_class.expression import Expression, Quotient
from graphgrow.own_class.marked import MarkedInt
from graphgrow.own_class.origin import Origin

HEADS, GROUPS, WIDTH = (Origin("", (name,)) for name in ("heads", "groups", "width"))


def marked(**values: int) -> list[Any]:
    return [MarkedInt.of(value, Expression.of(Origin("", (name,)))) for name, value in values.items()]


def test_what_is_computed_with_marked_numbers_is_what_ints_give_and_knows_what_it_is_made_of() -> None:
    heads, groups, width = marked(heads=4, groups=2, width=8)
    packed = heads * width + 2 * groups * width
    assert packed == 64
    assert str(packed.expression) == "2 * groups * width + heads * width"
    known = {HEADS: 5, GROUPS: 3, WIDTH: 7}
    cases: dict[int, Any] = {
        5 * 7 + 2 * 3 * 7: packed, 5 - 3: heads - groups, 10 - 5: 10 - heads, -7: -width, 2 * 3 // 2: 2 * groups // 2,
        9 + 5: sum([9, heads]),
    }  # fmt: skip
    assert [found.expression.value(known) for found in cases.values()] == list(cases)
    assert (heads - groups, 10 - heads, -width, 2 * groups // 2, sum([9, heads])) == (2, 6, -8, 2, 13)
    zero = heads - heads
    assert (zero, zero.expression.terms) == (0, ())


@pytest.mark.parametrize(
    "ordinary",
    [lambda n: n / 2, lambda n: n * 0.5, lambda n: n // 3, lambda n: 9 // n, lambda n: n**2, lambda n: n % 3],
)
def test_what_is_no_sum_or_product_is_an_ordinary_number(ordinary: Any) -> None:
    (width,) = marked(width=8)
    assert type(ordinary(width)) is type(ordinary(8))
    assert ordinary(width) == ordinary(8)
    assert width * [1] == [1] * width == [1] * 8


def test_a_division_without_a_rest_is_a_number_of_its_own() -> None:
    heads, groups, width = marked(heads=4, groups=2, width=8)
    shared = heads // groups + 2
    assert (shared, str(shared.expression), 16 // width, width // 3) == (4, "2 + (heads) // (groups)", 2, 2)
    (quotient,) = (heads // groups).expression.factors
    assert isinstance(quotient, Quotient)
    assert shared.expression.solved(5, {}) == {quotient: 3}
    assert quotient.of.plus(quotient.by.times(3), -1).solved(0, {HEADS: 6}) == {GROUPS: 2}
    assert (4 * width // 2).expression == (2 * width).expression


def test_the_one_that_is_not_known_follows() -> None:
    heads, groups, width = marked(heads=4, groups=2, width=8)
    packed = (heads * width + 2 * groups * width).expression
    assert packed.solved(96, {HEADS: 6, WIDTH: 8}) == {GROUPS: 3}
    assert packed.solved(97, {HEADS: 6, WIDTH: 8}) == {}  # no whole number
    assert packed.solved(96, {WIDTH: 8}) == {}  # heads or groups
    assert packed.solved(96, {WIDTH: 8, HEADS: 6, GROUPS: 3}) == {}  # nothing is left to find
    assert (width * width).expression.solved(49, {}) == {}
    assert Expression.of(WIDTH).solved(0.5, {}) == {WIDTH: 0.5}
    assert (heads * width).expression.solved(16, {HEADS: 0}) == {}
