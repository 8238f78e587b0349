"""What is recorded of growing while training: decisions with the numbers they rested on."""

from __future__ import annotations

from dataclasses import dataclass

from graphgrow.records.base import Record
from graphgrow.records.stage import StageRecord


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


@dataclass(frozen=True)
class EpochRecord(Record):
    """One epoch of a training.

    Attributes:
        epoch: from 1.
        stage: index of the stage that it belongs to.
        training_loss: mean over its batches.
        validation_loss: after it.
        validation_accuracy: after it, in [0, 1].
        learning_rate: of the first group of parameters.
        parameters: of the network that was trained.
        flops: of one forward pass of one sample.
        training_flops: spent so far; a training step counts three forward passes.
    """

    epoch: int
    stage: int
    training_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    parameters: int
    flops: int
    training_flops: int


@dataclass(frozen=True)
class TrainingRecord(Record):
    """A whole training with its growth.

    Attributes:
        recipe: its name.
        data: what it was trained on, in words.
        seed: of weights, samples and growth.
        epochs: in order.
        decisions: about growth, in order.
        stages: in order, the base first.
        test_accuracy: at the end, in [0, 1], on data that decided nothing.
        training_flops: in all.
        seconds: in all, over all sittings.
    """

    recipe: str
    data: str
    seed: int
    epochs: tuple[EpochRecord, ...]
    decisions: tuple[DecisionRecord, ...]
    stages: tuple[StageRecord, ...]
    test_accuracy: float
    training_flops: int
    seconds: float
