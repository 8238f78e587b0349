"""The time that a capture takes, step by step, and its end where that is more than it may."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graphgrow.errors import TimeBudgetError


class Clock:
    """Times the steps of a capture.

    What tells of its progress (a trace by torch.fx at each operator, Dynamo at each line) ends within a step. Other
    steps run the user's model as one call that nothing interrupts: the next one is not begun.

    Args:
        budget_s: seconds after which no step begins, nor goes on where it says how far it is; None for no limit.

    Attributes:
        seconds: by name of a step, what it took.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        self._budget_s, self._start = budget_s, time.perf_counter()
        self._present = ""
        self._at_most_s, self._began = math.inf, 0.0  # of the present step
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, at_most_s: float = math.inf) -> Iterator[None]:
        """One step, unless the time is over.

        Args:
            name: says what is done.
            at_most_s: seconds of processor time that it may take where there is no budget, if it tells of its progress:
                what a machine does besides does not count.

        Raises:
            TimeBudgetError: if it is; says what took how long.
        """
        start = time.perf_counter()
        self._end_if_over(start, lambda: f"{name} is still to come")
        self._present, self._began = name, time.process_time()
        self._at_most_s = at_most_s if self._budget_s is None else math.inf
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self._at_most_s = math.inf

    @property
    def runs(self) -> bool:
        """Whether the present step may come to its end by the clock."""
        return self._budget_s is not None or self._at_most_s < math.inf

    def progress(self, come_to: Callable[[], str]) -> None:
        """Within a step, of what it has come to.

        Raises:
            TimeBudgetError: if the time is over.
        """
        if not self.runs:
            return
        if self._budget_s is not None:
            self._end_if_over(time.perf_counter(), lambda: f"{self._present} has come to {come_to()}")
            return
        taken = time.process_time() - self._began
        if taken > self._at_most_s:
            raise TimeBudgetError(
                f"{self._present} has taken {taken:.1f} s of processor time, more than the {self._at_most_s:g} s that "
                f"it gets where no budget_s is given, and has come to {come_to()}. Give it more time with budget_s, "
                "which is for the capture as a whole, or smaller example inputs"
            )

    def _end_if_over(self, now: float, state: Callable[[], str]) -> None:
        if self._budget_s is None or now - self._start <= self._budget_s:
            return
        taken = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items())
        raise TimeBudgetError(
            f"the capture has taken {now - self._start:.1f} s, more than budget_s={self._budget_s:g}, and {state()}: "
            f"{taken or 'no step was done'}. Give it more time, or smaller example inputs"
        )
