"""When to ask a policy: on a plateau, or at intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from graphgrow.errors import TrainingError
from graphgrow.network.describe import counted


class Schedule(Protocol):
    """Says from what was measured since the last decision, or the beginning, whether it is time for the next."""

    def due(self, metrics: list[float | None]) -> str | None:
        """Why it is time, in words, or None.

        Args:
            metrics: one for each round since then, the lower the better; None where none was given.
        """


@dataclass(frozen=True)
class Interval:
    """Every so many rounds.

    Attributes:
        rounds: from one decision to the next.
    """

    rounds: int = 5

    def due(self, metrics: list[float | None]) -> str | None:
        """Once as many rounds have passed."""
        passed = len(metrics)
        return f"after {counted(passed, 'round')}" if passed >= self.rounds else None


@dataclass(frozen=True)
class Plateau:
    """When the metric has not got better for some rounds.

    Attributes:
        patience: rounds without a new best.
        least: relative improvement that counts as one.
    """

    patience: int = 3
    least: float = 0.01

    def due(self, metrics: list[float | None]) -> str | None:
        """Once the best metric is `patience` rounds old.

        Raises:
            TrainingError: if a round came without a metric.
        """
        best, age = float("inf"), 0
        for metric in metrics:
            if metric is None:
                raise TrainingError("a plateau is seen in a metric: call propose(validation_loss), or use an Interval")
            if metric < best - self.least * abs(best) or best == float("inf"):
                best, age = metric, 0
            else:
                age += 1
        return f"no better than {best:.4g} for {counted(age, 'round')}" if age >= self.patience else None
