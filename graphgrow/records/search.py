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


@dataclass(frozen=True)
class ChoiceRecord(Record):
    """One choice between operators, from its opening to its end.

    Attributes:
        site: the operator beside which it was opened.
        names: of the operators, the present one first.
        steps: of the training at which the weights were noted.
        shares: at each of them, the probability of each operator, noise aside.
        strongest: the most probable one at the end.
        kept: the one that was left; another than the strongest where the guard against skips stepped in.
    """

    site: str
    names: tuple[str, ...]
    steps: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    strongest: str
    kept: str


@dataclass(frozen=True)
class RoundRecord(Record):
    """One round of growing and choosing.

    Attributes:
        index: of the round, from 0.
        grown: mutations by which the network grew before its choices were opened.
        choices: one for each site.
        preserved: whether opening, and taking away what was not chosen, left the function as it was.
        loss_open: validation loss, in nats, of the mixture at the end of the alternation.
        loss_closed: the same with all the weight on the operators that were kept: the difference is the gap.
        accuracy_open: validation accuracy in [0, 1] of the mixture.
        accuracy_closed: the same with all the weight on the operators that were kept.
        accuracy: after the training behind that.
        test: on the test part, which decides nothing.
        guarded_at: the step at which the guard against skips stopped the architecture parameters; None if it did not.
        parameters: of the network at the end of the round.
        flops: of one forward pass of one sample.
        seconds: the round took.
    """

    index: int
    grown: tuple[str, ...]
    choices: tuple[ChoiceRecord, ...]
    preserved: bool
    loss_open: float
    loss_closed: float
    accuracy_open: float
    accuracy_closed: float
    accuracy: float
    test: float
    guarded_at: int | None
    parameters: int
    flops: int
    seconds: float
