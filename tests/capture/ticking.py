"""Time that passes by being asked for."""

from __future__ import annotations


class Ticking:
    """Stands for the module `time`: a second passes whenever somebody asks.

    Args:
        at_work: whether asking for processor time lets it pass too.
    """

    def __init__(self, at_work: bool = False) -> None:
        self.now, self._at_work = 0.0, at_work

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now

    def process_time(self) -> float:
        return self.perf_counter() if self._at_work else self.now
