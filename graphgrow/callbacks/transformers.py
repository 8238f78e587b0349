"""Growing under the Trainer of Hugging Face transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.training_args import ParallelMode

from graphgrow.callbacks.growth import Growth, Told
from graphgrow.errors import TrainingError
from graphgrow.train.checkpoint import newest_checkpoint, write_checkpoint
from graphgrow.train.policy import GrowthPolicy

FOLDER = "growth"


class GrowthCallback(Told, TrainerCallback):  # type: ignore[misc]
    """Lets the model of a `Trainer` grow.

        model = Growing(gg.trace(model, (), {"input_ids": ids, "labels": labels}))
        growth = GrowthCallback("dnm", when=Interval(2))
        Trainer(model, args, train_dataset=data, eval_dataset=held_out, callbacks=[growth]).train()

    A round ends with each evaluation or, where there is none, with each epoch. Training batches are observed, and the
    optimizer and its scheduler are carried over. What a resumed training needs lies in `growth/` of each checkpoint.

    Args:
        policy: or its name.
        metric: of each evaluation, by which a plateau and a rollback are seen; None is no metric.
        greater_is_better: whether that metric is the better the greater.
        folder: receives an ONNX file, benchmarked, and a record for each stage; None writes nothing.
        averaged: an AveragedModel of the model, grown along and kept in checkpoints; a callback of yours updates it at
            the end of each step.
        options: of the grower, as `Grower` takes them: `budget`, `when`, `cool_down`, `every`, ...

    Raises:
        TrainingError: for an option that there is not; and when training begins, if the model holds not exactly one
            `Growing`, is compiled or trained in parallel, or a checkpoint to go on from does not fit; and at an
            evaluation without the metric.
    """

    def __init__(
        self,
        policy: GrowthPolicy | str = "dnm",
        *,
        metric: str | None = "eval_loss",
        greater_is_better: bool = False,
        folder: str | os.PathLike[str] | None = None,
        averaged: AveragedModel | None = None,
        **options: Any,
    ) -> None:
        self._growth = Growth(policy, None if folder is None else Path(folder), {**options, "averaged": averaged})
        self._averaged = averaged
        self._metric, self._sign = metric, -1.0 if greater_is_better else 1.0
        self._training = False
        self._optimizer: Optimizer | None = None
        self._model: nn.Module | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Begin, or go on from the checkpoint that the Trainer has loaded."""
        if args.parallel_mode != ParallelMode.NOT_PARALLEL:
            raise TrainingError(
                f"the Trainer runs the model in parallel ({args.parallel_mode.value}) and would keep its wrapper of "
                "the old network; run one process on one device, or `graphgrow train` under torchrun"
            )
        if args.torch_compile:
            raise TrainingError("a compiled model cannot be observed; leave torch_compile out of the TrainingArguments")
        if state.global_step > 0:
            folder = _checkpoint_folder(args, state)
            found = newest_checkpoint(folder)
            if found is None:
                raise TrainingError(
                    f"{folder} holds nothing of how the network grew; resume from a checkpoint in the output_dir of "
                    "these TrainingArguments that was written with this callback"
                )
            self._growth.restore(found.state["growth"])
            if self._averaged is not None:
                self._restore_average(found.state["average"])
        assert model is not None
        self._model, self._optimizer = model, _unwrapped(optimizer)
        self._growth.begin(self._model, self._optimizer)
        self._training = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """End a round; evaluations before and after the training are passed over."""
        if not self._training or state.global_step == 0:
            return
        known = metrics or {}
        if self._metric is not None and self._metric not in known:
            raise TrainingError(
                f"`{self._metric}` is no metric of the evaluation; there are: {', '.join(sorted(known))}"
            )
        self._round(None if self._metric is None else self._sign * known[self._metric])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End a round, where nothing is evaluated."""
        if args.eval_strategy == "no":
            self._round(None)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write what a resumed training needs beside what the Trainer has written."""
        if self._training:
            average = None if self._averaged is None else dict(self._averaged.state_dict())
            kept = {"growth": self._growth.state(), "average": average}
            write_checkpoint(_checkpoint_folder(args, state), state.global_step, kept)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the last stage."""
        self._training = False
        self._growth.end()
        self._model = self._optimizer = None

    def _restore_average(self, kept: dict[str, torch.Tensor] | None) -> None:
        assert self._averaged is not None
        if kept is None:
            raise TrainingError(
                "the checkpoint was written without an average; resume without `averaged`, or begin anew"
            )
        self._averaged.load_state_dict(kept)

    def _round(self, metric: float | None) -> None:
        assert self._model is not None
        assert self._optimizer is not None
        known = {name for name, _ in self._model.named_parameters()}
        if self._growth.round(metric):
            _group_alike(self._optimizer, self._model, known)


def _checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / FOLDER


def _unwrapped(optimizer: Any) -> Optimizer:
    """The optimizer of torch in the one of accelerate."""
    found = getattr(optimizer, "optimizer", optimizer)
    assert isinstance(found, Optimizer)
    return found


def _group_alike(optimizer: Optimizer, model: nn.Module, known: set[str]) -> None:
    """Put new parameters into the group in which `Trainer.create_optimizer` would have put them, by their names.

    So biases are not decayed, and the optimizer that is made when a training resumes has the same groups. An optimizer
    that was grouped otherwise is left as it is.
    """
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # it asks nothing of the trainer
    groups = optimizer.param_groups
    place = {id(parameter): int(name not in decayed) for name, parameter in model.named_parameters()}
    old = {id(parameter) for name, parameter in model.named_parameters() if name in known}
    held = [[parameter for parameter in group["params"] if id(parameter) in old] for group in groups]
    if len(groups) != 2 or any(place[id(p)] != number for number, group in enumerate(held) for p in group):
        return
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    for number, group in enumerate(groups):
        group["params"][:] = [p for p in model.parameters() if id(p) in trained and place[id(p)] == number]
