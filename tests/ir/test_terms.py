"""Unification and refinement of axis terms, against axes that are really laid out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.ir.terms import (
    Concat,
    Product,
    Reason,
    Space,
    Term,
    concat,
    find,
    freeze,
    leaves,
    normal,
    occurs,
    product,
    unify,
)
from tests.effort import examples
from tests.ir.labels import positions, space_lists, terms

WHY = Reason("node", "a test")


def _same(*axes: Term) -> bool:
    """Whether the axes, laid out, have the same coordinates at every position."""
    spaces: dict[Space, int] = {}
    laid_out = [positions(axis, spaces) for axis in axes]
    return all(one == laid_out[0] for one in laid_out)


def _frozen(*axes: Term) -> bool:
    return all(leaf.frozen is not None for axis in axes for leaf in leaves(axis))


def _free_of_ones(*axes: Term) -> list[Space]:
    return [leaf for axis in axes for leaf in leaves(axis) if leaf.size != 1]


@st.composite
def _factorisations(draw: Any, size: int) -> Term:
    sizes: list[int] = []
    while size > 1:
        sizes.append(draw(st.sampled_from([d for d in range(2, size + 1) if size % d == 0])))
        size //= sizes[-1]
    return product(map(Space, sizes or [1]))


@st.composite
def _partitions(draw: Any, size: int) -> Term:
    sizes: list[int] = []
    while size:
        sizes.append(draw(st.integers(1, size)))
        size -= sizes[-1]
    return concat(map(Space, sizes))


@st.composite
def _fresh(draw: Any, size: int, depth: int = 2) -> Term:
    """A random term of a given size, over spaces of its own."""
    if not depth or size == 1:
        return Space(size)
    kind = draw(st.sampled_from(["space", "product", "concat"]))
    if kind == "space":
        return Space(size)
    outline = draw(_factorisations(size) if kind == "product" else _partitions(size))
    if isinstance(outline, Space):
        return outline
    children = outline.factors if isinstance(outline, Product) else outline.parts
    inner = tuple(draw(_fresh(child.size, depth - 1)) for child in children)
    return product(inner) if kind == "product" else concat(inner)


@examples(100)
@given(data=st.data())
def test_two_terms_become_one_or_are_frozen(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([4, 6, 8, 12, 16, 24]))
    a, b = data.draw(_fresh(size)), data.draw(_fresh(size))
    unify(a, b, WHY)
    assert a.size == b.size == size
    assert normal(a).size == normal(b).size == size
    free = [leaf for leaf in (*leaves(a), *leaves(b)) if leaf.frozen is None]
    if free:
        _check_free(a, b, free)


def _check_free(a: Term, b: Term, free: list[Space]) -> None:
    """A space that is not frozen has the same coordinate at every position of both axes."""
    spaces: dict[Space, int] = {}
    mine, theirs = positions(a, spaces), positions(b, spaces)
    numbers = {spaces[space] for space in free if space in spaces}
    for here, there in zip(mine, theirs, strict=True):
        assert [c for c in here if c[0] in numbers] == [c for c in there if c[0] in numbers]


@examples(60)
@given(data=st.data())
def test_many_relations_at_once_leave_nothing_guessed(data: st.DataObject) -> None:
    """Several axes of one size, related in a chain and in a ring: what stays free agrees along all of them."""
    size = data.draw(st.sampled_from([6, 8, 12]))
    axes = [data.draw(_fresh(size)) for _ in range(data.draw(st.integers(3, 4)))]
    for a, b in zip(axes, [*axes[1:], axes[0]], strict=True):
        unify(a, b, WHY)
    for other in axes[1:]:
        free = [leaf for leaf in (*leaves(axes[0]), *leaves(other)) if leaf.frozen is None]
        _check_free(axes[0], other, free)


@examples(60)
@given(data=st.data())
def test_terms_over_shared_spaces_stay_sound(data: st.DataObject) -> None:
    """Spaces that occur in both terms, several times even."""
    spaces = data.draw(space_lists(1, 3))
    a = data.draw(terms(spaces))
    b = data.draw(st.one_of(terms(spaces), _fresh(a.size)))
    if a.size != b.size:
        return
    unify(a, b, WHY)
    free = [leaf for leaf in (*leaves(a), *leaves(b)) if leaf.frozen is None]
    _check_free(a, b, free)


@examples(40)
@given(data=st.data())
def test_factorisations_that_can_be_refined_are_never_frozen(data: st.DataObject) -> None:
    """Two views of a row-major axis agree exactly where the products of their leading sizes divide each other."""
    size = data.draw(st.sampled_from([8, 12, 16, 36]))
    a, b = data.draw(_factorisations(size)), data.draw(_factorisations(size))
    cuts = sorted(set(_cuts(a)) | set(_cuts(b)))
    nested = all(later % earlier == 0 for earlier, later in itertools.pairwise(cuts))
    unify(a, b, WHY)
    assert any(leaf.frozen for leaf in (*leaves(a), *leaves(b))) is not nested
    if nested:
        assert _same(a, b)
        assert [leaf.size for leaf in leaves(a)] == [y // x for x, y in zip([1, *cuts], cuts, strict=False)]


def _cuts(term: Term) -> list[int]:
    sizes = [factor.size for factor in term.factors] if isinstance(term, Product) else [term.size]
    return [math.prod(sizes[: i + 1]) for i in range(len(sizes))]


@examples(40)
@given(data=st.data())
def test_partitions_always_align(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 12))
    a, b = data.draw(_partitions(size)), data.draw(_partitions(size))
    unify(a, b, WHY)
    assert not any(leaf.frozen for leaf in (*leaves(a), *leaves(b)))
    assert _same(a, b)


def test_a_space_is_refined_everywhere_at_once() -> None:
    channels, heads, width = Space(12), Space(3), Space(4)
    stream = Concat((channels, Space(2), channels))
    unify(channels, Product((heads, width)), WHY)
    assert list(leaves(stream)) == [heads, width, *list(leaves(stream))[2:3], heads, width]
    assert normal(channels) == Product((heads, width))
    finer = Space(2), Space(2)
    unify(width, Product(finer), WHY)
    assert list(leaves(channels)) == [heads, *finer]
    assert stream.size == 26


@pytest.mark.parametrize("kind", [concat, product])
def test_a_space_that_occurs_twice_is_cut_at_both_places(kind: Any) -> None:
    """A gate over (A, B, A, B) has two halves of one space each, whichever side is known first."""
    for flip in (False, True):
        first, second, half = Space(3), Space(2), Space(5 if kind is concat else 6)
        known, halves = kind((first, second, first, second)), kind((half, half))
        unify(*((halves, known) if flip else (known, halves)), WHY)
        assert not _frozen(known, halves)
        assert normal(half) == kind((find(first), find(second)))
        assert _same(known, halves)


def test_a_product_distributes_over_a_concatenation() -> None:
    """(F x R) = A ++ B: what a view into (3 h, d) of a packed projection and its chunk into three state together."""
    outer, inner = Space(6), Space(4)
    parts = [Space(8), Space(8), Space(8)]
    unify(Product((outer, inner)), Concat(tuple(parts)), WHY)
    assert not any(leaf.frozen for leaf in leaves(outer))
    assert isinstance(normal(outer), Concat)
    for part in parts:
        assert list(leaves(part))[-1] is inner
    assert _same(Product((outer, inner)), Concat(tuple(parts)))


def test_a_concatenation_that_cuts_through_a_factor_is_frozen() -> None:
    outer, inner, parts = Space(3), Space(4), (Space(6), Space(6))
    unify(Product((outer, inner)), Concat(parts), WHY)
    assert _frozen(outer, inner, *parts)
    assert inner.frozen is WHY


def test_freezing_keeps_the_first_reason() -> None:
    space = Space(3)
    freeze([space], WHY)
    freeze([space], Reason("later", "another"))
    assert space.frozen is WHY
    assert str(WHY) == "a test (at `node`)"


@pytest.mark.parametrize("frozen_first", [True, False])
def test_a_frozen_space_freezes_what_it_is_made_equal_to(frozen_first: bool) -> None:
    fixed, free = Space(6, frozen=WHY), Space(6)
    unify(*((fixed, free) if frozen_first else (free, fixed)), Reason("x", "y"))
    assert _frozen(fixed, free)
    parts = Space(2), Space(3)
    unify(fixed, Product(parts), Reason("x", "y"))
    assert all(part.frozen is WHY for part in parts)


def test_a_label_survives_a_union() -> None:
    plain, named = Space(4), Space(4, "heads")
    unify(named, plain, WHY)
    assert find(named) is find(plain)
    assert next(leaves(plain)).label == "heads"


def test_a_factor_of_size_one_that_a_view_drops_is_frozen() -> None:
    one, rest, whole = Space(1), Space(6), Product((Space(2), Space(3)))
    unify(Product((one, rest)), whole, WHY)
    assert one.frozen is not None
    assert not any(leaf.frozen for leaf in leaves(whole))
    assert _same(rest, whole)


def test_a_space_within_itself_is_frozen_and_ends() -> None:
    space, one = Space(4), Space(1)
    unify(space, Product((one, space)), WHY)
    assert _frozen(space)


def test_unequal_sizes_are_a_defect_of_the_rule() -> None:
    with pytest.raises(ValueError, match="sizes 3 and 4 cannot be equal"):
        unify(Space(3), Space(4), WHY)


def test_normal_form_is_flat_and_singletons_vanish() -> None:
    a, b, c = Space(2), Space(3), Space(5)
    assert product([a]) is a
    assert concat([a]) is a
    assert normal(Product((Product((a, b)), c))) == Product((a, b, c))
    assert normal(Concat((a, Concat((b, c))))) == Concat((a, b, c))
    assert normal(Product((Concat((a, b)), c))) == Product((Concat((a, b)), c))


def test_long_chains_of_unions_are_compressed() -> None:
    """Ten thousand unions: no recursion, and one step to the representative afterwards."""
    spaces = [Space(3) for _ in range(10_000)]
    for a, b in itertools.pairwise(spaces):
        unify(a, b, WHY)
    root = find(spaces[0])
    assert all(find(space) is root for space in spaces)
    assert spaces[0].bound is root


def test_a_concatenation_that_grows_along_a_network_stays_flat() -> None:
    """x = cat([x, new]) three thousand times: no deeper than it is long, and nothing counts it again each time."""
    spaces = [Space(2) for _ in range(3000)]
    term: Term = spaces[0]
    for space in spaces[1:]:
        term = Concat((term, space))
    assert term.size == 6000
    assert list(leaves(term)) == spaces
    assert normal(term) == Concat(tuple(spaces))


def test_an_axis_that_is_cut_part_by_part_is_followed_without_recursion() -> None:
    """Each cut binds what is left to a part and a rest, two thousand deep."""
    units = [Space(1) for _ in range(2000)]
    rest = whole = Space(2000)
    for unit in units[:-1]:
        rest.bound = Concat((unit, tail := Space(rest.size - 1)))
        rest = tail
    rest.bound = units[-1]
    assert list(leaves(whole)) == units
    assert normal(whole) == Concat(tuple(units))


@pytest.mark.parametrize("kind", [Product, Concat])
def test_the_spaces_of_a_term_follow_what_is_bound_after_they_were_looked_up(kind: Any) -> None:
    joined, other = Space(6), Space(5)
    term = kind((joined, other))
    assert list(leaves(term)) == [joined, other]
    first, second = Space(2), Space(3)
    unify(joined, Product((first, second)), WHY)
    assert list(leaves(term)) == [first, second, other]
    third = Space(3)
    unify(second, third, WHY)
    assert list(leaves(term)) == [first, third, other]
    assert occurs(third, term)
    assert not occurs(second, term)
