"""Whether a growth has paid: for some rounds after it, it may be taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.network.describe import counted
from graphgrow.train.snapshot import Snapshot


@dataclass(frozen=True)
class Failure:
    """A growth that has not paid.

    Attributes:
        before: what there was before it.
        reason: in words.
        numbers: that it rests on, by name.
    """

    before: Snapshot
    reason: str
    numbers: Mapping[str, float]


class Trial:
    """The growth that may still be taken back, if there is one.

    Args:
        after: rounds after which it is, if the metric is not below what it was; None never.
        margin: by which share of what it was the metric may be above and the growth stays; below 0, by which it has to
            have fallen.
    """

    def __init__(self, after: int | None, margin: float) -> None:
        self._after = after
        self._margin = margin
        self._before: tuple[Snapshot, float | None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether growths are ever taken back."""
        return self._after is not None

    @property
    def undecided(self) -> bool:
        """Whether the last growth may still be taken back."""
        return self._before is not None

    def begin(self, before: Snapshot, metrics: Sequence[float | None]) -> None:
        """Put a growth on trial.

        Args:
            before: what there was before it.
            metrics: of the rounds since the growth before it.
        """
        self._before = before, min((metric for metric in metrics if metric is not None), default=None)

    def failure(self, metrics: Sequence[float | None]) -> Failure | None:
        """End the trial once it is time; None where it is not, or the growth has paid.

        Args:
            metrics: of the rounds since the growth, the lower the better.

        Raises:
            TrainingError: if there were no metrics before or after it.
        """
        if self._before is None or len(metrics) < (self._after or 0):
            return None
        before, best = self._before
        if metrics[-1] is None or best is None:
            raise TrainingError("a rollback needs a metric; call propose(validation_loss)")
        self._before = None
        reached = min(one for one in metrics if one is not None)
        limit = best + self._margin * abs(best)
        if reached < limit:
            return None
        rounds = f"{reached:.4g} after {counted(len(metrics), 'round')}"
        reason = f"{rounds} is no better than {best:.4g} before the growth"
        if self._margin:
            more = f"{abs(self._margin):.1%} {'more' if self._margin > 0 else 'less'}"
            reason = f"{rounds} is not below {limit:.4g}, {more} than the {best:.4g} before the growth"
        return Failure(before, reason, {"metric_before": best, "metric_after": reached, "margin": self._margin})

    def state(self) -> Any:
        """What `restore` needs, plain values and tensors; None where nothing is on trial."""
        return None if self._before is None else [self._before[0].plain(), self._before[1]]

    def restore(self, state: Any, base: Graph) -> None:
        """Go on from a state, with the graph that all grew from."""
        self._before = None if state is None else (Snapshot.from_plain(base, state[0]), state[1])
