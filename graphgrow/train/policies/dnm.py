"""dnm: dynamic neural morphogenesis. Busy units split, and connections grow where gradients ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from graphgrow.graph import Graph
from graphgrow.signals.activity import ActivitySignal
from graphgrow.signals.gradients import GradientSignal
from graphgrow.signals.skips import SkipSignal
from graphgrow.signals.watch import Signal
from graphgrow.train.policy import Candidate, Evidence, GrowthPolicy


@dataclass(frozen=True)
class Dnm(GrowthPolicy):
    """Splits units of high entropy, and adds connections whose gradient stands out of chance.

    A unit of a group whose activations are spread over their range (high entropy) and whose gradients differ from
    sample to sample (high variance) serves several ends at once; a split gives each its own. Groups come in the order
    of their effective rank over their width: where that is near 1 all directions are in use.

    Attributes:
        entropy: normalised entropy from which a unit is split, in [0, 1].
        split_probability: with which such a unit is.
        share: of a group's units that are split at most.
        gradient: how far above chance a connection's gradient must be, as a factor.
        connections: so many of one stage at most; of each pair of values the pair that scores best.
        apart: whether the copies are pulled apart, as `split` does it; it preserves the function.
    """

    entropy: float = 0.4
    split_probability: float = 1.0
    share: float = 0.5
    gradient: float = 1.5
    connections: int = 1
    apart: bool = True
    name: ClassVar[str] = "dnm"
    summary: ClassVar[str] = "split units of high entropy, connect where gradients stand out of chance"
    wants: ClassVar[str] = "units above its entropy that can be split, or a connection whose gradient is above chance"

    def signals(self, graph: Graph, seed: int) -> Mapping[str, Signal]:
        """Activity and gradients of all groups, and scores of the connections that apply."""
        found: dict[str, Signal] = {
            "activity": ActivitySignal(graph, seed=seed),
            "gradients": GradientSignal(graph, seed=seed),
        }
        if self.connections:
            pairs = [(mutation.site_name, str(vars(mutation)["target"])) for mutation in graph.mutations("add-skip")]
            found["skips"] = SkipSignal(graph, pairs, seed=seed)
        return found

    def candidates(self, graph: Graph, evidence: Evidence, generator: torch.Generator) -> Iterator[Candidate]:
        """Connections first, since they cost little; then splits, the group that is used most fully first."""
        wanted = [score for score in evidence.skips if score.above_chance >= self.gradient]
        wanted = [score for score in wanted if evidence.held_out.get(score.mutation, 1.0) > 0]
        for score in wanted[: self.connections]:
            numbers = {
                "gradient": score.norm,
                "above_chance": min(score.above_chance, 1e9),
                "correlation": score.correlation,
                "correlation_per_mflop": score.per_flop,
            }
            if score.mutation in evidence.held_out:
                numbers["held_out_cosine"] = evidence.held_out[score.mutation]
            yield Candidate((score.mutation,), numbers)
        splittable = {mutation.site_name for mutation in graph.mutations("split")}
        for activity in sorted(evidence.activity.values(), key=lambda one: -one.rank_share):
            if activity.group not in splittable:
                continue
            drawn = torch.rand(len(activity.entropy), generator=generator) < self.split_probability
            busy = (activity.entropy >= self.entropy) & ~activity.constant & drawn
            pull = evidence.gradients[activity.group].variance.sqrt()
            order = (activity.entropy * pull).masked_fill(~busy, -1.0).argsort(descending=True, stable=True)
            most = max(1, round(self.share * len(order)))
            units = sorted(order[: min(most, int(busy.sum()))].tolist())
            if units:
                numbers = {
                    "entropy": float(activity.entropy[units].mean()),
                    "entropy_of_group": float(activity.entropy.mean()),
                    "rank_share": activity.rank_share,
                    "gradient_deviation": float(pull[units].mean()),
                    "units": float(len(units)),
                }
                apart = ", apart=true" if self.apart else ""
                yield Candidate((f"split({activity.group}, units={units}{apart})",), numbers)
