"""The time that a capture takes, step by step, and its end where that is more than it may."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from graphgrow.errors import TimeBudgetError


class Clock:
    """Times the steps of a capture.

    What is told of its progress (a trace by torch.fx, operator by operator) ends within a step. Other steps run the
    user's model, or Dynamo, as one call that nothing interrupts: the next one is not begun.

    Args:
        budget_s: seconds after which no step begins, nor goes on where it says how far it is; None for no limit.

    Attributes:
        seconds: by name of a step, what it took.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        self._budget_s, self._start = budget_s, time.perf_counter()
        self._present = ""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step, unless the time is over.

        Raises:
            TimeBudgetError: if it is; says what took how long.
        """
        start = time.perf_counter()
        self._end_if_over(start, f"{name} is still to come")
        self._present = name
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def progress(self, operators: int) -> None:
        """Within a step: so many operators are done.

        Raises:
            TimeBudgetError: if the time is over.
        """
        if self._budget_s is not None:
            self._end_if_over(time.perf_counter(), f"{self._present} has come to operator {operators}")

    def _end_if_over(self, now: float, state: str) -> None:
        if self._budget_s is None or now - self._start <= self._budget_s:
            return
        taken = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items())
        raise TimeBudgetError(
            f"the capture has taken {now - self._start:.1f} s, more than budget_s={self._budget_s:g}, and {state}: "
            f"{taken or 'no step was done'}. Give it more time, or smaller example inputs"
        )
