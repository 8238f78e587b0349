"""The time that a capture takes, step by step, and its end where that is more than it may."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from graphgrow.errors import TimeBudgetError


class Clock:
    """Times the steps of a capture.

    A step is not interrupted, since it may run the user's own code: the next one is not begun.

    Args:
        budget_s: seconds after which no step begins; None for no limit.

    Attributes:
        seconds: by name of a step, what it took.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        self._budget_s, self._start = budget_s, time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step, unless the time is over.

        Raises:
            TimeBudgetError: if it is; says what took how long.
        """
        start = time.perf_counter()
        if self._budget_s is not None and start - self._start > self._budget_s:
            taken = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items())
            raise TimeBudgetError(
                f"the capture has taken {start - self._start:.1f} s, more than budget_s={self._budget_s:g}, and {name} "
                f"is still to come: {taken or 'nothing was begun'}. Give it more time, or smaller example inputs"
            )
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
