"""How the loss pulls at the units of channel groups: mean and variance of their gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch

from graphgrow.errors import SignalError
from graphgrow.network.groups import Group
from graphgrow.network.network import Network
from graphgrow.signals.places import Place, for_each, places_of
from graphgrow.signals.watch import Callback, on_gradient


@dataclass(frozen=True, eq=False)
class UnitGradients:
    """Gradients with respect to the activations of one group's units, over samples and positions.

    Attributes:
        group: the group's name.
        mean: float64 (units,).
        variance: float64 (units,), divided by the number of samples.
        samples: for each unit.
    """

    group: str
    mean: torch.Tensor
    variance: torch.Tensor
    samples: int


class GradientSignal:
    """Per-unit gradient statistics, streamed from training batches.

    A unit whose gradient varies from sample to sample while its mean is near zero is pulled in several directions
    at once: what one unit cannot serve, two can. The gradients are those of the loss as it is: of a mean over the
    batch they are 1 / batch size of each sample's own.

    Args:
        network: whose groups they are.
        groups: channel groups, none of them given: all that can grow and are read somewhere.
        samples: at most so many for each unit from each batch.
        seed: of these draws.
    """

    def __init__(
        self, network: Network, groups: Iterable[Group] | None = None, *, samples: int = 64, seed: int = 0
    ) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._samples = samples
        self._moments: dict[str, list[_Moments]] = {}
        for group, places in for_each(network, groups, partial(places_of, network)):
            self._moments[group.name] = [_Moments(place) for place in places]

    def watches(self) -> Iterable[tuple[str, Callback]]:
        """The values in which the groups' units are read."""
        for moments in self._moments.values():
            for one in moments:
                yield one.place.node, partial(on_gradient, callback=partial(self._look, one))

    def results(self) -> dict[str, UnitGradients]:
        """By group, what was seen so far.

        Raises:
            SignalError: if no backward pass was seen.
        """
        return {name: _summary(name, moments) for name, moments in self._moments.items()}

    def _look(self, moments: _Moments, gradient: torch.Tensor) -> None:
        moments.update(moments.place.rows(gradient, self._samples, self._generator))


@dataclass(eq=False)
class _Moments:
    """Running mean and sum of squared deviations (Chan, Golub and LeVeque 1983), which do not cancel."""

    place: Place
    count: int = 0
    mean: torch.Tensor | None = None
    squares: torch.Tensor | None = None

    def update(self, rows: torch.Tensor) -> None:
        new = len(rows)
        rows = rows.double()
        mean = rows.mean(0)
        squares = (rows - mean).square().sum(0)
        if self.mean is not None and self.squares is not None:
            total = self.count + new
            apart = mean - self.mean
            squares = self.squares + squares + apart.square() * (self.count * new / total)
            mean = self.mean + apart * (new / total)
        self.mean, self.squares, self.count = mean, squares, self.count + new


def _summary(name: str, moments: list[_Moments]) -> UnitGradients:
    seen = [(one.mean, one.squares / one.count) for one in moments if one.mean is not None and one.squares is not None]
    if not seen:
        raise SignalError(f"no gradient of `{name}` was seen; run loss.backward() while the model is watched")
    means, variances = (torch.stack(list(each)).mean(0).cpu() for each in zip(*seen, strict=True))
    return UnitGradients(name, means, variances, sum(one.count for one in moments))
