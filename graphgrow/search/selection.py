"""Who survives: NSGA-II's ranks and crowding distances, hypervolume, and a choice from the front, all from pymoo.

Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002. Every function
takes points, one row for each candidate and one column for each objective, all to be small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphgrow.errors import SearchError

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Place:
    """Where a candidate stands.

    Attributes:
        index: of its point.
        rank: 0 for the front, 1 for the front of the rest, ...
        crowding: how far its neighbours in the same rank are; infinite at the ends.
    """

    index: int
    rank: int
    crowding: float

    def beats(self, other: Place) -> bool:
        """The crowded comparison: a lower rank, or in the same rank a less crowded place."""
        return (self.rank, -self.crowding) < (other.rank, -other.crowding)


def survivors(points: Points, count: int) -> list[Place]:
    """The `count` candidates that survive, best rank first; all where there are no more, of equal points one."""
    distinct = list({tuple(point): index for index, point in reversed(list(enumerate(points)))}.values())[::-1]
    if not distinct:
        return []
    pymoo = _pymoo()
    population = pymoo.Population.new("F", np.asarray([points[index] for index in distinct], dtype=float))
    problem = pymoo.Problem(n_var=1, n_obj=len(points[0]))
    population.set("index", np.asarray(distinct))
    chosen = pymoo.RankAndCrowding().do(
        problem, population, n_survive=min(count, len(distinct)), random_state=np.random.default_rng(0)
    )
    places = [Place(int(one.get("index")), int(one.get("rank")), float(one.get("crowding"))) for one in chosen]
    return sorted(places, key=lambda place: (place.rank, place.index))


def front(points: Points) -> list[int]:
    """The indices of the points that no other dominates; of equal points the first."""
    if not points:
        return []
    ranked = _pymoo().NonDominatedSorting().do(np.asarray(points, dtype=float), only_non_dominated_front=True)
    seen: set[tuple[float, ...]] = set()
    chosen = []
    for index in sorted(int(one) for one in ranked):
        if tuple(points[index]) not in seen:
            seen.add(tuple(points[index]))
            chosen.append(index)
    return chosen


def hypervolume(points: Points, worst: Sequence[float]) -> float:
    """The volume that points dominate within the box from 0 to the worst values, as a share of the box."""
    limits = np.asarray(worst, dtype=float)
    inside = [point for point in points if all(value < limit for value, limit in zip(point, worst, strict=True))]
    if not inside:
        return 0.0
    measured = _pymoo().HV(ref_point=np.ones(len(limits)))
    return float(measured(np.asarray(inside, dtype=float) / limits))


def compromise(points: Points, weights: Sequence[float]) -> int:
    """The index of the one point for these weights: the least augmented Chebyshev distance from the best values.

    Each objective is scaled to [0, 1] over the points; a weight of 2 makes an objective count twice as much.
    Wierzbicki, "The use of reference objectives in multiobjective optimization", 1980.

    Raises:
        SearchError: if there are no points, or not one positive weight for each objective.
    """
    if not points or len(weights) != len(points[0]) or min(weights, default=0.0) <= 0:
        raise SearchError(
            f"a choice from the front wants points and one positive weight for each objective, not {list(weights)}"
        )
    values = np.asarray(points, dtype=float)
    low, high = values.min(axis=0), values.max(axis=0)
    scaled: npt.NDArray[np.float64] = (values - low) / np.where(high > low, high - low, 1.0)
    scores = _pymoo().ASF().do(scaled, weights=1.0 / np.asarray(weights, dtype=float))
    best: int = int(np.lexsort((scaled.sum(axis=1), np.ravel(scores)))[0])  # of equal ones that with the least sum
    return best


@dataclass(frozen=True)
class _Pymoo:
    """The parts of pymoo that are used here; loaded when first needed, since that takes half a second."""

    ASF: Any
    HV: Any
    NonDominatedSorting: Any
    Population: Any
    Problem: Any
    RankAndCrowding: Any


def _pymoo() -> _Pymoo:
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem
    from pymoo.decomposition.asf import ASF
    from pymoo.indicators.hv import HV
    from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    return _Pymoo(ASF, HV, NonDominatedSorting, Population, Problem, RankAndCrowding)
