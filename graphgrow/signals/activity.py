"""How much the units of channel groups do: entropy, saturation, dead units and effective rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch

from graphgrow.errors import SignalError
from graphgrow.network.groups import Group
from graphgrow.network.network import Network
from graphgrow.signals.histogram import UnitHistograms
from graphgrow.signals.places import Place, for_each, places_of
from graphgrow.signals.watch import Callback

MOST_FOR_RANK = 256  # units whose covariance is kept; of a wider group as many are drawn once


@dataclass(frozen=True, eq=False)
class Activity:
    """What the units of one group did; where they are seen in several values, means over those.

    Attributes:
        group: the group's name.
        entropy: of each unit's activations, over the log of the bins they span, in [0, 1], float64 (units,).
        saturation: share of samples at either end of a unit's range, in [0, 1], float64 (units,).
        constant: which units showed one value alone, everywhere, bool (units,).
        dead: which units showed nothing but zeros, bool (units,).
        effective_rank: of the activations, at least 1 and at most the units; 0 where all are constant.
        rank_share: effective rank over the number of units.
        samples: for each unit.
    """

    group: str
    entropy: torch.Tensor
    saturation: torch.Tensor
    constant: torch.Tensor
    dead: torch.Tensor
    effective_rank: float
    rank_share: float
    samples: int


class ActivitySignal:
    """Activity of channel groups, streamed from training batches.

    Entropy of a unit's activations says how much it tells (few bins: a switch, or nothing); the effective rank of all
    of them says in how many directions the group is used (Roy and Vetterli, "The effective rank", 2007: the
    exponential of the entropy of the normalised singular values). A group whose rank is near its width and whose units
    are busy is short of units; NORTH* (Maile et al., "When, where, and how to add new neurons to ANNs", AutoML 2022)
    triggers growth by the same comparison of rank and width.

    Args:
        network: whose groups they are.
        groups: channel groups, none of them given: all that can grow and are read somewhere.
        bins: of each histogram.
        samples: at most so many for each unit from each batch, drawn from batch and positions alike.
        seed: of these draws; the user's random state is left alone.
    """

    def __init__(
        self,
        network: Network,
        groups: Iterable[Group] | None = None,
        *,
        bins: int = 64,
        samples: int = 64,
        seed: int = 0,
    ) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._samples = samples
        self._seen: dict[str, list[_Seen]] = {}
        for group, places in for_each(network, groups, partial(places_of, network)):
            self._seen[group.name] = [_Seen(place, bins, self._generator) for place in places]

    def watches(self) -> Iterable[tuple[str, Callback]]:
        """The values in which the groups' units are read."""
        return [(seen.place.node, partial(self._look, seen)) for places in self._seen.values() for seen in places]

    def results(self) -> dict[str, Activity]:
        """By group, what was seen so far.

        Raises:
            SignalError: if no batch was seen.
        """
        return {name: _activity(name, places) for name, places in self._seen.items()}

    def _look(self, seen: _Seen, value: torch.Tensor) -> None:
        seen.update(seen.place.rows(value, self._samples, self._generator))


@dataclass(eq=False)
class _Seen:
    """What was seen of a group in one value."""

    place: Place
    bins: int
    generator: torch.Generator
    histograms: UnitHistograms | None = None
    _chosen: torch.Tensor | None = None
    _sum: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    _products: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def update(self, rows: torch.Tensor) -> None:
        if self.histograms is None:
            self.histograms = UnitHistograms(self.place.units, self.bins, rows.device)
            if self.place.units > MOST_FOR_RANK:
                drawn = torch.randperm(self.place.units, generator=self.generator)[:MOST_FOR_RANK]
                self._chosen = drawn.to(rows.device)
            width = min(self.place.units, MOST_FOR_RANK)
            self._sum = torch.zeros(width, dtype=torch.float64, device=rows.device)
            self._products = torch.zeros(width, width, dtype=torch.float64, device=rows.device)
        self.histograms.update(rows)
        used = rows if self._chosen is None else rows.index_select(1, self._chosen)
        used = used if used.dtype == torch.float64 else used.float()
        self._sum += used.sum(0)
        self._products += used.T @ used

    def effective_rank(self) -> float:
        """Of the centred activations: exp of the entropy of their normalised singular values."""
        assert self.histograms is not None
        count = self.histograms.samples
        centred = self._products - torch.outer(self._sum, self._sum) / count
        variances = torch.linalg.eigvalsh(centred)
        values = variances.clamp(min=0).sqrt()
        # what rounding leaves of float32 activations is no direction
        values = torch.where(values > 1e-6 * self._products.diagonal().sum().sqrt(), values, torch.zeros(()).to(values))
        total = values.sum()
        if float(total) == 0.0:
            return 0.0
        shares = values / total
        return float((-torch.special.xlogy(shares, shares).sum()).exp())


def _activity(name: str, places: list[_Seen]) -> Activity:
    histograms = [seen.histograms for seen in places if seen.histograms is not None]
    if not histograms:
        raise SignalError(f"no batch was seen yet in which `{name}` is used; run the model while it is watched")
    ranks = [seen.effective_rank() for seen in places if seen.histograms is not None]
    constant = torch.stack([one.constant() for one in histograms]).all(0)
    still = torch.stack([(one.lowest == 0) & (one.highest == 0) for one in histograms]).all(0)
    rank = sum(ranks) / len(ranks)
    return Activity(
        group=name,
        entropy=torch.stack([one.entropy() for one in histograms]).mean(0).cpu(),
        saturation=torch.stack([one.saturation() for one in histograms]).mean(0).cpu(),
        constant=constant.cpu(),
        dead=still.cpu(),
        effective_rank=rank,
        rank_share=rank / min(places[0].place.units, MOST_FOR_RANK),
        samples=sum(one.samples for one in histograms),
    )
