"""What is recorded of a search: its candidates, its generations, and the choice between operators."""

from __future__ import annotations

from dataclasses import dataclass

from graphgrow.records.base import Record


@dataclass(frozen=True)
class CandidateRecord(Record):
    """One evaluated candidate of an evolution.

    Attributes:
        number: of the candidate, 0 for the base.
        rung: of the evaluation: 0, or higher where successive halving trained it on.
        generation: in which it was made.
        parents: numbers of the candidates that it was made from, the one whose weights it inherits first.
        origin: "base", "mutation" or "crossover".
        mutations: in text form, those that its first parent does not have.
        status: "done" or "failed".
        reason: why it failed; empty where it did not.
        objectives: value by name of the objective, in the objective's unit.
        spread: interquartile range or standard deviation of those that are noisy, by name.
        parameters: number of scalar parameters.
        flops: of one forward pass of one sample.
        preserved: whether it computed its parent's function before it was trained; None where it has no such parent.
        max_error: that the verification saw.
        bound: that it allowed.
        steps: of training in this evaluation.
        seconds: by part of the evaluation: "inherit", "vary", "verify", "train", "measure".
    """

    number: int
    rung: int
    generation: int
    parents: tuple[int, ...]
    origin: str
    mutations: tuple[str, ...]
    status: str
    reason: str
    objectives: dict[str, float]
    spread: dict[str, float]
    parameters: int
    flops: int
    preserved: bool | None
    max_error: float
    bound: float
    steps: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class GenerationRecord(Record):
    """One generation of an evolution, after selection.

    Attributes:
        index: of the generation, 0 for that of the base alone.
        evaluations: so far.
        failures: so far.
        population: numbers of the survivors.
        front: numbers of those that no other evaluated candidate dominates, by the first objective.
        hypervolume: that the front dominates, as a share of the box between the best and the worst values.
    """

    index: int
    evaluations: int
    failures: int
    population: tuple[int, ...]
    front: tuple[int, ...]
    hypervolume: float
