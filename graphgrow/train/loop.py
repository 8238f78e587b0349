"""The ready-made trainer: a recipe, a folder, and everything that comes of it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel

from graphgrow.data.evaluation import loss_of, require_logits, score
from graphgrow.data.names import load_data
from graphgrow.errors import TrainingError
from graphgrow.graph import Graph
from graphgrow.network.ledger import Ledger
from graphgrow.records import EpochRecord, TrainingRecord
from graphgrow.report.timeline import timeline
from graphgrow.rewrite.apply import replay
from graphgrow.store.files import write_atomically
from graphgrow.store.folder import save
from graphgrow.store.lock import locked
from graphgrow.store.names import build
from graphgrow.store.tensors import install, unique_tensors
from graphgrow.store.tracing import trace
from graphgrow.train.board import Board
from graphgrow.train.checkpoint import newest_checkpoint, recipe_text, refuse_another, write_checkpoint
from graphgrow.train.device import placed, random_states, require_backend, set_random_states, usable_device
from graphgrow.train.growth import average_of, grower_of
from graphgrow.train.narration import Narration
from graphgrow.train.optimizers import make_optimizer, optimizer_state, restore_optimizer
from graphgrow.train.proposal import Proposal
from graphgrow.train.ranks import Ranks, joined
from graphgrow.train.recipe import Recipe
from graphgrow.train.reproducible import reproducible
from graphgrow.train.stages import Stages

CHECKPOINTS, BOARD = "checkpoints", "board"


def train(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    root: str | None = None,
    narration: Narration | None = None,
    repeats: int = 50,
    board: bool = False,
    device: str = "cpu",
) -> TrainingRecord:
    """Train a recipe's model on its data and let it grow; go on where an earlier call in the same folder stopped.

    A stage lasts from one growth to the next: it is verified when it begins, and exported and benchmarked when it ends.
    After every epoch, and within it after every `save_every` steps, there is a checkpoint. Killed at any moment and
    called again, it ends with the same weights, to the bit, as in one go (on the CPU, with one thread).

    Under torchrun each process trains on its share of every batch; the first decides and writes, all grow alike.

    Args:
        recipe: what to do.
        folder: receives `NN-name.onnx` and `NN-name.json` for each stage, `checkpoints/`, and at the end
            `training.json`, `training.png` and the grown model in `grown/`, as `gg.save` writes it.
        root: of data that lie in a folder.
        narration: tells about it; None is silent.
        repeats: timed runs of each exported file.
        board: whether to write event files for TensorBoard into `board/`.
        device: `cpu`, `cuda` or `cuda:1`; what is written does not depend on it.

    Raises:
        FolderError: if another process trains in the folder.
        TrainingError: if the recipe cannot be carried out, there is no such device, the folder holds the checkpoints of
            another recipe, or a checkpoint cannot be written.
        ModeError: if the model goes another way in train mode than in eval mode, so that no graph holds for both.
        NotPreserved, ExportError, BenchmarkError: as `run_stage` does.
    """
    place = usable_device(device)
    with joined() as ranks, reproducible(recipe.seed), contextlib.ExitStack() as held:
        tell = narration if narration is not None and ranks.first else Narration(None)
        events = Path(folder) / BOARD if board and ranks.first else None
        run = _Run(recipe, Path(folder), root, tell, repeats, ranks, events, place)
        ranks.decided(lambda: held.enter_context(locked(folder)))
        return run.run()


class _Run:
    """One training; everything that changes is restored from a checkpoint.

    Attributes:
        order: draws the order of the samples of each epoch.
        shuffled: its state before the epoch that is going on.
        step: batches of that epoch that are done.
        loss: sum over their samples.
        saved: checkpoints so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        root: str | None,
        tell: Narration,
        repeats: int,
        ranks: Ranks,
        events: Path | None,
        device: torch.device,
    ) -> None:
        self.recipe, self.folder, self.tell, self.repeats, self.ranks = recipe, folder, tell, repeats, ranks
        self.events, self.device = events, device
        require_backend(recipe.training.compile)
        self.data = load_data(recipe.data.name, root, **recipe.data.options)
        model, *_ = build(recipe.model.name, **recipe.model.options)
        graph = trace(model.to(device), self.data.training.inputs[:2].to(device))
        graph.require_modes("train", "eval")
        require_logits(graph, recipe.model.name, self.data)
        named = recipe.model.name.startswith(("graphgrow:", "torchvision:")) and not recipe.model.options
        self.base = replace(graph, base=recipe.model.name) if named else graph
        part = recipe.training
        self.optimizer = make_optimizer(part.optimizer, graph.module, part.lr, part.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self._set_up(self.base)
        if not ranks.first:
            torch.manual_seed(recipe.seed * 1_000_003 + ranks.index)  # dropout draws otherwise in each process
        self.order = torch.Generator().manual_seed(recipe.seed)
        self.shuffled = self.order.get_state()
        self.step = 0
        self.loss = 0.0
        self.saved = 0
        self.epochs: list[EpochRecord] = []
        self.training_flops = 0
        self.seconds = 0.0
        self.clock = 0.0
        self._compiled: tuple[nn.Module, Any] | None = None

    def _set_up(self, graph: Graph) -> None:
        """The average of a graph, the grower over it, and its stages."""
        self.averaged = average_of(graph.module, self.recipe.training.average)
        self.grower = grower_of(self.recipe, graph, self.optimizer, self.averaged, self._held_out)
        self.stages = Stages(self.grower, self.optimizer, self.folder, self.repeats)
        self.grower.going_back = self._end

    def run(self) -> TrainingRecord:
        """From the newest checkpoint, or the beginning, to the end."""
        self._resume()
        self.board = Board(self.events, len(self.epochs))
        self.tell.opening(self.recipe, self.data, self.grower.graph, len(self.epochs))
        if self.stages.present is None:
            self._begin(None)
        with self.tell.progress(self.recipe.training.epochs) as watch:
            while len(self.epochs) < self.recipe.training.epochs:
                self.clock = time.perf_counter()
                self.epochs.append(self._epoch())
                watch(self.epochs[-1])
                self.board.epoch(self.epochs[-1])
                asked = len(self.epochs) <= self._last_growth
                if asked or self.grower.undecided:
                    self._grow(self.epochs[-1].validation_loss, asked)
                self._checkpoint()
        return self._finish()

    # -- epochs ------------------------------------------------------------------------------------------------

    def _epoch(self) -> EpochRecord:
        part, training = self.recipe.training, self.data.training
        graph = self.grower.graph
        flops = graph.flops
        graph.module.train()
        self.shuffled = self.order.get_state()
        batches = torch.randperm(len(training), generator=self.order).split(part.batch_size)  # type: ignore[no-untyped-call]
        for batch in batches[self.step :]:
            share = self.ranks.share(batch)
            if len(share) > 1:  # a batch norm needs two samples
                self.loss += self._step(training.inputs[share], training.targets[share]) * len(share)
                self.training_flops += 3 * flops * len(share) * self.ranks.count
            self.step += 1
            if self.step % part.save_every == 0 and self.step < len(batches):
                self._checkpoint()
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.scheduler.step()
        found = self.ranks.decided(lambda: score(self._measured, self.data.validation))
        mean, self.loss, self.step = sum(self.ranks.gathered(self.loss)) / len(training), 0.0, 0
        self.shuffled = self.order.get_state()
        return EpochRecord(
            epoch=len(self.epochs) + 1,
            stage=len(self.stages.ended),
            training_loss=mean,
            validation_loss=found.loss,
            validation_accuracy=found.accuracy,
            learning_rate=rate,
            parameters=graph.parameter_count,
            flops=flops,
            training_flops=self.training_flops,
        )

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        module = self.grower.module
        runner = self.grower.parallel if self.grower.will_observe else self._fast(self.grower.parallel)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        self.optimizer.zero_grad()
        with self.grower.observe():
            with self._precision():
                logits = runner(inputs)
            loss = loss_of(logits, targets)
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(module)
        return float(loss.detach())

    def _fast(self, module: nn.Module) -> Any:
        """The module, compiled where the recipe says so; compiled anew after each growth."""
        if not self.recipe.training.compile:
            return module
        if self._compiled is None or self._compiled[0] is not module:
            self._compiled = module, torch.compile(module, backend=self.recipe.training.compile)
        return self._compiled[1]

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        half = self.recipe.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext()

    @property
    def _measured(self) -> fx.GraphModule:
        """What is measured: the average, where there is one."""
        if self.averaged is None:
            return self.grower.module
        assert isinstance(self.averaged.module, fx.GraphModule)
        return self.averaged.module

    def _accuracy(self) -> float:
        return self.ranks.decided(lambda: score(self._measured, self.data.test).accuracy)

    # -- stages ------------------------------------------------------------------------------------------------

    @property
    def _last_growth(self) -> int:
        """The epoch after which it grows no more."""
        growth = self.recipe.growth
        return 0 if growth is None else int(growth.until * self.recipe.training.epochs)

    def _grow(self, metric: float, asked: bool) -> None:
        """Behind an epoch: grow, go back, or neither."""
        before, decided = self.grower.graph, len(self.grower.decisions)
        proposal = self.grower.propose(metric, only_back=not asked)
        if proposal is not None:
            self._end()
            self._begin(proposal)
        elif self.grower.graph is not before:
            self._begin(None)  # what did not pay has ended before it was taken back
        for decision in self.grower.decisions[decided:]:
            self.board.decision(decision, len(self.epochs))
            if decision.verdict == "declined":
                self.tell.declined(decision, len(self.epochs))

    def _begin(self, proposal: Proposal | None) -> None:
        """Begin a stage: verify, carry the optimizer over, start what is new."""
        grown = bool(self.stages.ended)
        self.stages.begin(proposal)
        stage = self.stages.note(accuracy_before=self._accuracy())
        if grown:
            self.tell.growth(stage, self.grower.decisions[-1], len(self.epochs))

    def _end(self) -> None:
        """End a stage: test, export, benchmark, record."""
        self.stages.note(accuracy_after=self._accuracy())
        ended = self.stages.end(replace(self.grower.graph, module=self._measured))
        self.board.stage(ended, len(self.epochs))

    def _finish(self) -> TrainingRecord:
        self._end()
        policy, made = self.grower.policy, self.grower.stage
        if made < policy.listed:
            why = "it was not time for the others, or they were declined"
            self.tell.warn(f"{made} of {policy.listed} listed stages made: {why}")
        record = TrainingRecord(
            recipe=self.recipe.name,
            data=self.data.source,
            seed=self.recipe.seed,
            epochs=tuple(self.epochs),
            decisions=tuple(self.grower.decisions),
            stages=tuple(self.stages.ended),
            test_accuracy=self._accuracy(),
            training_flops=self.training_flops,
            seconds=self.seconds,
        )
        self.ranks.decided(lambda: self._write(record))
        self.board.close()
        return record

    def _write(self, record: TrainingRecord) -> None:
        text = json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
        write_atomically(self.folder / "training.json", text.encode())
        picture = timeline(record, self.folder / "training.png")
        saved = save(replace(self.grower.graph, module=self._measured), self.folder / "grown")
        self.tell.closing(record, picture, saved)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        module = self.grower.module
        state = {
            "recipe": recipe_text(self.recipe),
            "ledger": self.grower.graph.ledger.to_json(),
            "tensors": unique_tensors(module),
            "optimizer": optimizer_state(self.optimizer, module),
            "scheduler": {name: item for name, item in self.scheduler.state_dict().items() if name != "lr_lambdas"},
            "average": None if self.averaged is None else self._average_state(self.averaged),
            "grower": self.grower.state(),
            "order": self.shuffled,
            "step": self.step,
            "loss": sum(self.ranks.gathered(self.loss)),
            "random": self.ranks.gathered(random_states(self.device)),
            "epochs": [record.to_json() for record in self.epochs],
            "stages": self.stages.state(),
            "training_flops": self.training_flops,
            "seconds": self.seconds,
        }
        self.saved += 1
        self.ranks.decided(lambda: write_checkpoint(self.folder / CHECKPOINTS, self.saved, state))

    def _resume(self) -> None:
        found = self.ranks.decided(lambda: newest_checkpoint(self.folder / CHECKPOINTS))
        if found is None:
            return
        for note in found.notes:
            self.tell.warn(f"passed over a checkpoint: {note}")
        state: Any = found.state
        refuse_another(self.folder, state["recipe"], self.recipe, "training")
        if len(state["random"]) != self.ranks.count:
            raise TrainingError(
                f"{self.folder} holds the checkpoints of {len(state['random'])} processes, now there are "
                f"{self.ranks.count}; start as many, or use another folder"
            )
        tensors, optimizer, average, grower = placed(
            [state[name] for name in ("tensors", "optimizer", "average", "grower")], self.device
        )
        graph = replay(self.base, Ledger.from_json(state["ledger"]))
        where = str(self.folder / CHECKPOINTS)
        install(where, graph.module, tensors)
        graph = replace(graph)  # without what was found out about the tensors it had
        restore_optimizer(self.optimizer, graph.module, optimizer)
        self.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": [None]})
        self._set_up(graph)
        if self.averaged is not None:
            install(where, self.averaged.module, average["tensors"])
            self.averaged.n_averaged.copy_(average["count"])
        self.grower.restore(graph, grower, self.base)
        self.order.set_state(state["order"])
        self.step, self.loss, self.saved = state["step"], state["loss"] if self.ranks.first else 0.0, found.number
        set_random_states(self.device, state["random"][self.ranks.index])
        self.epochs = [EpochRecord.from_json(item) for item in state["epochs"]]
        self.stages.restore(state["stages"])
        self.training_flops, self.seconds = state["training_flops"], state["seconds"]

    @staticmethod
    def _average_state(averaged: AveragedModel) -> dict[str, Any]:
        return {"tensors": unique_tensors(averaged.module), "count": averaged.n_averaged}

    # -- parts of the recipe -----------------------------------------------------------------------------------

    def _rate(self, epoch: int) -> float:
        """The factor on the learning rate: 1, and at the end a line to zero."""
        total = self.recipe.training.epochs
        falling = max(1, round(self.recipe.training.anneal * total))
        return min(1.0, (total - epoch) / falling)

    def _held_out(self, module: nn.Module) -> torch.Tensor:
        part = self.data.validation
        return loss_of(module(part.inputs[:256].to(self.device)), part.targets[:256].to(self.device))
