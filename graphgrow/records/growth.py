"""What is recorded of growing while training: decisions with the numbers they rested on."""

from __future__ import annotations

from dataclasses import dataclass

from graphgrow.records.base import Record


@dataclass(frozen=True)
class DecisionRecord(Record):
    """One decision about growth: what was done or declined, when, and on which numbers.

    Attributes:
        round: how many times it had been asked before, from 0.
        policy: the policy's name.
        verdict: "grown", "declined" or "rolled back".
        reason: in words.
        mutations: in text form, in order; of a declined decision those that were considered first.
        numbers: by name, what the decision rested on.
        parameters_before: of the network that was asked about.
        parameters_after: of the one that came of it.
        flops_before: of one sample.
        flops_after: of one sample.
    """

    round: int
    policy: str
    verdict: str
    reason: str
    mutations: tuple[str, ...]
    numbers: dict[str, float]
    parameters_before: int
    parameters_after: int
    flops_before: int
    flops_after: int
