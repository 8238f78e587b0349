"""When it is time."""

from __future__ import annotations

import pytest

from graphgrow.errors import TrainingError
from graphgrow.train.schedule import Interval, Plateau


def test_a_plateau_is_as_many_rounds_without_a_new_best() -> None:
    plateau = Plateau(patience=2, least=0.01)
    assert plateau.due([1.0, 0.9, 0.895]) is None
    assert plateau.due([1.0, 0.9, 0.895, 0.893]) == "no better than 0.9 for 2 rounds"
    assert Plateau(1).due([1.0, 1.0]) == "no better than 1 for 1 round"
    assert plateau.due([1.0, 0.9, 0.95, 0.8]) is None
    assert plateau.due([]) is None
    with pytest.raises(TrainingError):
        plateau.due([1.0, None])


def test_an_interval_counts_rounds_with_or_without_a_metric() -> None:
    assert Interval(3).due([None, 1.0]) is None
    assert Interval(1).due([None]) == "after 1 round"
    assert Interval(3).due([None, 1.0, 2.0]) == "after 3 rounds"
