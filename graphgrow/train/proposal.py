"""What a grower would do now: the candidates of a policy that fit together into budget and stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphgrow.errors import GraphGrowError
from graphgrow.graph import Graph
from graphgrow.rewrite.apply import apply
from graphgrow.train.budget import Budget
from graphgrow.train.policy import Candidate, GrowthPolicy


@dataclass(frozen=True)
class Proposal:
    """What a grower would do now.

    Attributes:
        candidates: that fit together, in order.
        reason: why now, in words.
        numbers: what it rests on, by name; those of the n-th candidate from the second on carry its number.
        parameters: of the grown network.
        flops: of the grown network, for one sample.
    """

    candidates: tuple[Candidate, ...]
    reason: str
    numbers: Mapping[str, float]
    parameters: int
    flops: int

    @property
    def mutations(self) -> tuple[str, ...]:
        """All of them in order, as text."""
        return tuple(mutation for candidate in self.candidates for mutation in candidate.mutations)

    def __str__(self) -> str:
        return f"{self.reason}: {', '.join(self.mutations)}"


@dataclass(frozen=True)
class Nothing:
    """Why nothing is to be done.

    Attributes:
        reason: in words.
        considered: mutations, as text.
        full: whether the budget leaves no room for any of them.
    """

    reason: str
    considered: tuple[str, ...] = ()
    full: bool = False


def choose(
    graph: Graph, candidates: Iterator[Candidate], policy: GrowthPolicy, budget: Budget, reason: str, seed: int
) -> Proposal | Nothing:
    """The first candidates that fit together into the budget and the stage.

    Args:
        graph: that would grow.
        candidates: what is wanted most first.
        policy: whose candidates they are; its `growth` and `most` limit the stage, `growth` none that is listed.
        budget: upper limits of the grown network.
        reason: why now.
        seed: of the fresh weights with which the child is timed, where latency is limited.

    Raises:
        ExportError, BenchmarkError: if latency is limited and the child cannot be exported or timed.
    """
    limit = policy.growth * graph.flops * 1.05
    chosen: list[Candidate] = []
    parameters, flops = graph.parameter_count, graph.flops
    refusals: list[str] = []
    considered: list[str] = []
    beyond = 0  # candidates that are too much for the budget by themselves
    for candidate in candidates:
        considered.extend(candidate.mutations)
        together = [text for one in (*chosen, candidate) for text in one.mutations]
        try:
            cost = graph.cost(together)
        except GraphGrowError as error:
            refusals.append(str(error))
            continue
        total = graph.parameter_count + cost.parameters, graph.flops + cost.flops
        refusal = budget.refusal(*total)
        beyond += refusal is not None
        if refusal is None and total[1] > limit and not candidate.listed:
            refusal = (
                f"{total[1] / graph.flops:.3g} times the FLOPs in one stage, of which the policy's growth is "
                f"{policy.growth:g} at most"
            )
        if refusal is not None:
            refusals.append(refusal)
            continue
        chosen.append(candidate)
        parameters, flops = total
        if len(chosen) == policy.most:
            break
    if not chosen:
        why = refusals[0] if refusals else f"the policy {policy.name} sees nothing to do: it wants {policy.wants}"
        return Nothing(why, tuple(considered), full=0 < beyond == len(refusals))
    proposal = Proposal(tuple(chosen), reason, _numbers(chosen), parameters, flops)
    if budget.latency_ms is not None:
        slow = budget.too_slow(apply(graph, proposal.mutations, seed=seed))
        if slow is not None:
            return Nothing(slow, proposal.mutations)
    return proposal


def _numbers(candidates: list[Candidate]) -> dict[str, float]:
    found = {}
    for position, candidate in enumerate(candidates, 1):
        for name, value in candidate.numbers.items():
            found[name if len(candidates) == 1 else f"{name}_{position}"] = float(value)
    return found
