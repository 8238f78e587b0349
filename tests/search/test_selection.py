"""Selection against hand-computed cases and against dominance written out."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.errors import SearchError
from graphgrow.search.selection import Place, compromise, front, hypervolume, survivors

POINTS = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 2), min_size=1, max_size=12)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@given(points=POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    found = front(points)
    kept = {p for p in points if not any(dominates(q, p) for q in points)}
    assert {points[index] for index in found} == kept
    assert len(found) == len(kept)  # of equal points one


@given(points=POINTS, count=st.integers(1, 6))
def test_survivors_come_rank_by_rank(points: list[tuple[float, float]], count: int) -> None:
    places = survivors(points, count)
    assert len(places) == min(count, len(set(points)))
    left = set(points)
    for place in places:
        rank = 0
        rest = set(points)
        while any(dominates(q, points[place.index]) for q in rest):
            rest -= {p for p in rest if not any(dominates(q, p) for q in rest)}
            rank += 1
        assert place.rank == rank
        left.discard(points[place.index])
    worst = max(place.rank for place in places)
    assert not any(all(not dominates(q, p) for q in points) for p in left) or worst == 0


def test_the_crowded_ones_go_first() -> None:
    """By hand: of five on one line the ends stay, and the middle one, whose neighbours are furthest."""
    line = [(0.0, 10.0), (1.0, 9.0), (4.0, 4.0), (9.0, 1.0), (10.0, 0.0)]
    assert [place.index for place in survivors(line, 3)] == [0, 2, 4]
    distance = {place.index: place.crowding for place in survivors(line, 5)}
    assert distance[0] == distance[4] == math.inf
    assert distance[2] > distance[1] == distance[3]


def test_the_crowded_comparison() -> None:
    assert Place(0, 0, 1.0).beats(Place(1, 1, math.inf))
    assert Place(0, 0, 2.0).beats(Place(1, 0, 1.0))
    assert not Place(0, 0, 1.0).beats(Place(1, 0, 1.0))


def test_hypervolume_by_hand() -> None:
    """Two rectangles in a box of 1 x 10, one of which overlaps the other."""
    assert hypervolume([(0.5, 5.0)], (1.0, 10.0)) == pytest.approx(0.25)
    assert hypervolume([(0.5, 5.0), (0.25, 8.0)], (1.0, 10.0)) == pytest.approx(0.25 + 0.25 * 0.2)
    assert hypervolume([(0.5, 5.0), (1.5, 0.0)], (1.0, 10.0)) == pytest.approx(0.25)  # beyond the worst
    assert hypervolume([(1.0, 5.0)], (1.0, 10.0)) == hypervolume([], (1.0, 10.0)) == 0.0
    assert hypervolume([(0.0, 0.0)], (1.0, 10.0)) == pytest.approx(1.0)


def test_hypervolume_of_three_objectives_agrees_with_counting() -> None:
    draw = random.Random(1)
    points = [tuple(draw.random() for _ in range(3)) for _ in range(6)]
    probes = [tuple(draw.random() for _ in range(3)) for _ in range(20_000)]
    inside = sum(any(all(p <= q for p, q in zip(point, probe, strict=True)) for point in points) for probe in probes)
    assert hypervolume(points, (1.0, 1.0, 1.0)) == pytest.approx(inside / len(probes), abs=0.02)


def test_compromise() -> None:
    points = [(0.0, 10.0), (0.4, 4.0), (1.0, 0.0)]
    assert compromise(points, (1.0, 1.0)) == 1
    assert compromise(points, (100.0, 1.0)) == 0
    assert compromise(points, (1.0, 100.0)) == 2
    assert compromise([(3.0, 3.0)], (1.0, 1.0)) == 0
    for weights in ((1.0,), (1.0, 0.0), (1.0, -1.0)):
        with pytest.raises(SearchError, match="one positive weight for each objective"):
            compromise(points, weights)
    with pytest.raises(SearchError):
        compromise([], ())
