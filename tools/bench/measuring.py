"""What the benchmarks share: timing with its spread, the fit of an exponent, and parts of a call by the clock."""

from __future__ import annotations

import functools
import gc
import importlib
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")


@dataclass(frozen=True)
class Seconds:
    """How long one call took.

    Attributes:
        wall: by the clock on the wall.
        cpu: by the processor's time of this process, all threads together; other processes do not count.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Spread:
    """Repeated calls, in seconds: median and interquartile range on the wall, and the least processor time."""

    repeats: int
    median: float
    iqr: float
    least: float
    cpu: float


def timed(call: Callable[[], T]) -> tuple[T, Seconds]:
    """The result of a call and how long it took; garbage is collected before."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory of tensors on the CPU that a call held at once, beyond what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = seen.profiler.kineto_results.events()
    steps: list[tuple[int, int]] = sorted((one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]")
    return max(itertools.accumulate((size for _, size in steps), initial=0))


def spread_of(runs: Sequence[Seconds]) -> Spread:
    """The statistics of repeated calls.

    Raises:
        ValueError: if there are none.
    """
    if not runs:
        raise ValueError("no runs to take statistics of; make at least one")
    walls = [run.wall for run in runs]
    first, _, third = statistics.quantiles(walls, method="inclusive") if len(walls) > 1 else [walls[0]] * 3
    return Spread(len(runs), statistics.median(walls), third - first, min(walls), min(run.cpu for run in runs))


@dataclass(frozen=True)
class PowerLaw:
    """seconds = factor * nodes ** exponent.

    Attributes:
        exponent: 1 is linear.
        factor: seconds at one node.
        residual: the largest distance of a point from the line, as a factor (1 is none).
    """

    exponent: float
    factor: float
    residual: float


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> PowerLaw:
    """The least-squares line through log seconds over log sizes.

    Raises:
        ValueError: if there are fewer than two different sizes, or a number that has no logarithm.
    """
    if len(set(sizes)) < 2 or min(*sizes, *seconds) <= 0:
        raise ValueError(f"no line through sizes {list(sizes)} and seconds {list(seconds)}; wanted positive numbers, "
                         "at least two of them with different sizes")  # fmt: skip
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    slope, intercept = statistics.linear_regression(x, y)
    far = max(abs(b - (intercept + slope * a)) for a, b in zip(x, y, strict=True))
    return PowerLaw(slope, math.exp(intercept), math.exp(far))


@dataclass
class Stopwatch:
    """Time spent in named functions, while `watching` them.

    Attributes:
        seconds: by label, processor time of this process in those calls; a call within a call of the same label
            counts once.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    @contextmanager
    def watching(self, places: Mapping[str, Sequence[str]]) -> Iterator[None]:
        """Watch functions where their callers look them up.

        Args:
            places: by label, each as `module:name` or `module:Class.name`.
        """
        replaced: list[tuple[Any, str, Any]] = []
        try:
            for label, place in ((label, place) for label, several in places.items() for place in several):
                owner, name = _owner(place)
                original = owner.__dict__[name]
                replaced.append((owner, name, original))
                setattr(owner, name, self._watched(label, original))
            yield
        finally:
            for owner, name, original in reversed(replaced):
                setattr(owner, name, original)

    def _watched(self, label: str, call: Any) -> Any:
        if isinstance(call, classmethod):
            return classmethod(self._watched(label, call.__func__))

        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if label in self._open:
                return call(*args, **kwargs)
            self._open.add(label)
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self._open.discard(label)
                self.seconds[label] = self.seconds.get(label, 0.0) + time.process_time() - start

        return watched


def _owner(place: str) -> tuple[Any, str]:
    """The module or class, and the name in it."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name
