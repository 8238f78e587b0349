"""The fit against cases worked out by hand, statistics, and the watch on functions."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest
import torch

from tools.bench.measuring import Seconds, Stopwatch, peak_bytes, power_law, spread_of
from tools.bench.mutation import PARTS


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_the_exponent_of_an_exact_power_law(exponent: float) -> None:
    sizes = [100, 300, 1000, 3000]
    found = power_law(sizes, [0.25 * size**exponent for size in sizes])
    assert found.exponent == pytest.approx(exponent)
    assert found.factor == pytest.approx(0.25)
    assert found.residual == pytest.approx(1.0)


def test_the_exponent_of_three_points_by_hand() -> None:
    """Logs to base 10: x = 1, 2, 3 and y = 0, 0, 1, so the slope is 1/2, the line 1/3 + (x - 2) / 2."""
    found = power_law([10, 100, 1000], [1, 1, 10])
    assert found.exponent == pytest.approx(0.5)
    assert found.factor == pytest.approx(10 ** (1 / 3 - 1))
    assert found.residual == pytest.approx(10 ** (1 / 3)), "the middle point lies 1/3 below the line"


@pytest.mark.parametrize(("sizes", "seconds"), [([10, 10], [1, 2]), ([10], [1]), ([10, 20], [0, 1])])
def test_no_line_without_two_sizes_and_positive_numbers(sizes: list[float], seconds: list[float]) -> None:
    with pytest.raises(ValueError, match="wanted positive numbers"):
        power_law(sizes, seconds)


def test_statistics_of_runs() -> None:
    """Quartiles of 1, 2, 3, 4, 9 are 2 and 4; processor times have an order of their own."""
    runs = [Seconds(wall, cpu) for wall, cpu in ((9, 5), (1, 4), (4, 3), (2, 0.5), (3, 1))]
    found = spread_of(runs)
    assert (found.repeats, found.median, found.iqr, found.least, found.cpu) == (5, 3, 2, 1, 0.5)
    alone = spread_of(runs[:1])
    assert (alone.median, alone.iqr, alone.cpu) == (9, 0, 5)
    with pytest.raises(ValueError, match="no runs"):
        spread_of([])


class Subject:
    @classmethod
    def of(cls, depth: int) -> int:
        clock.now += 1.0
        return cls.of(depth - 1) if depth else 7


clock = SimpleNamespace(now=0.0)


def test_the_watch_counts_nested_calls_once_and_puts_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: clock.now)
    original = Subject.__dict__["of"]
    watch = Stopwatch()
    with watch.watching({"of": [f"{__name__}:Subject.of"]}):
        assert Subject.of(2) == 7
        assert Subject.of(0) == 7
    assert watch.seconds == {"of": 4.0}, "three seconds in calls within one another, and one"
    assert Subject.__dict__["of"] is original
    assert Subject.of(5) == 7
    assert watch.seconds == {"of": 4.0}


def test_a_place_that_is_gone_is_named() -> None:
    with pytest.raises(KeyError, match="hypotenuse"), Stopwatch().watching({"x": ["math:hypotenuse"]}):
        math.hypot(1, 1)


def test_every_part_of_a_mutation_is_there_to_be_watched() -> None:
    watch = Stopwatch()
    with watch.watching(PARTS):
        pass
    assert watch.seconds == {}


def test_the_peak_is_what_was_held_at_once() -> None:
    def call() -> None:
        first = torch.ones(1000, dtype=torch.float64)  # 8,000 bytes
        del first
        second = [torch.ones(500, dtype=torch.float64) for _ in range(3)]  # 12,000
        del second

    assert 12_000 <= peak_bytes(call) < 12_200
    assert peak_bytes(lambda: None) == 0
