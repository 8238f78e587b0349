"""Statistics over a growing axis: which fills they admit, and the factor that makes up for the new units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from graphgrow.ir.facts import Normalisation, Statistic, StatisticKind
from graphgrow.ir.flow import Fill, Held, State
from graphgrow.ir.positions import Removal, Units, axis_map, grown_size, occurrences, present_size
from graphgrow.ir.terms import Product, Space, Term, normal
from graphgrow.planning.evaluate import Key, holds


@dataclass(frozen=True)
class Verdict:
    """Whether a statistic admits the fills that it sees.

    Attributes:
        factor: what its output must be multiplied by to be what it was; None where nothing can bring that about.
        wanted: fills any one of which would do instead, in the order in which to ask for them.
    """

    factor: float | None
    wanted: tuple[Fill, ...] = ()


def old_share(norm: Normalisation, change: Units | Removal) -> float:
    """How many entries a normalisation takes its statistics of before a change, for each one after it."""
    after = prod(grown_size(term, {change.space: change.new_size}) for term in norm.term)
    return prod(map(present_size, norm.term)) / after


def growing_axis(statistic: Statistic, space: Space) -> int | None:
    """The axis that grows among those of which the statistic is taken."""
    axes = statistic.value.axes
    return next((axis for axis in statistic.axes if holds((axes[axis],), space)), None)


def judge(statistic: Statistic, units: Units, append: bool, fills: Mapping[Key, State]) -> Verdict:
    """What a statistic over a growing axis admits.

    A mean stays what it is where new units hold the mean, or where every unit is copied alike; new units of zero, and
    shares, leave the sum. A variance grows by nothing where new units hold the mean of all that it is taken of, which
    is that of the units only where they are the whole axis. A norm does not see zeros, nor does the largest singular
    value of a matrix, which is found by steps from vectors that copies would double.
    """
    axis = growing_axis(statistic, units.space)
    assert axis is not None
    term = statistic.value.axes[axis]
    state = fills.get((statistic.value, axis), (Fill.EVEN,) * occurrences(term, units.space))
    seen: set[Held] = set(state) - {Fill.NULL}
    old = prod(present_size(statistic.value.axes[i]) for i in statistic.axes)
    ratio = grown_size(term, {units.space: units.new_size}) / present_size(term)
    if not seen:
        seen = {Fill.ZERO if append else Fill.SHARE}
    if append:
        verdict = _appended(statistic, normal(term), units.space, seen, old, ratio)
    else:
        verdict = _replicated(statistic, seen, old, ratio, axis_map(term, units).uniform)
    if statistic.inverse and verdict.factor is not None:
        return Verdict(1 / verdict.factor)
    return verdict


def _appended(statistic: Statistic, term: Term, space: Space, seen: set[Held], old: int, ratio: float) -> Verdict:
    kind = statistic.kind
    if kind is StatisticKind.MEAN:
        everywhere = term is space or (isinstance(term, Product) and space in term.factors)  # not one part of several
        if seen == {Fill.MEAN} and everywhere:
            return Verdict(1.0)
        wanted = (Fill.MEAN, Fill.ZERO) if everywhere else (Fill.ZERO,)
        return Verdict(ratio) if seen == {Fill.ZERO} else Verdict(None, wanted)
    if kind in (StatisticKind.NORM, StatisticKind.SPECTRAL):
        return Verdict(1.0) if seen == {Fill.ZERO} else Verdict(None, (Fill.ZERO,))
    # the mean of a part is not that of all; an axis of size 1 may be the batch of an example
    if kind is StatisticKind.EXTREME or len(statistic.axes) > 1 or term is not space:
        return Verdict(None)
    if seen != {Fill.MEAN}:
        return Verdict(None, (Fill.MEAN,))
    return Verdict(_of_squares(statistic, 1.0, old, ratio))


def _replicated(statistic: Statistic, seen: set[Held], old: int, ratio: float, uniform: bool) -> Verdict:
    kind = statistic.kind
    if kind is StatisticKind.SPECTRAL:
        return Verdict(None)
    if kind is StatisticKind.EXTREME:
        return Verdict(1.0 if seen == {Fill.COPY} else None)
    if kind is StatisticKind.MEAN and seen == {Fill.SHARE}:
        return Verdict(ratio)
    if seen != {Fill.COPY} or not uniform:
        return Verdict(None, (Fill.SHARE,) if kind is StatisticKind.MEAN and seen == {Fill.COPY} else ())
    if kind is StatisticKind.MEAN:
        return Verdict(1.0)
    if kind is StatisticKind.NORM:
        return Verdict(1.0 if math.isinf(statistic.parameter) else ratio ** (-1 / statistic.parameter))
    return Verdict(_of_squares(statistic, ratio, old, ratio))


def _of_squares(statistic: Statistic, growth: float, old: int, ratio: float) -> float:
    """The factor on a variance whose sum of squares grew by `growth` and whose count by `ratio`."""
    correction = statistic.parameter
    factor = (old * ratio - correction) / (old - correction) / growth
    return math.sqrt(factor) if statistic.kind is StatisticKind.DEVIATION else factor
