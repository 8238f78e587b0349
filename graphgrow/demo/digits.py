"""The main job on real data: train to a plateau, grow, verify, train on, export, benchmark, stage by stage."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from graphgrow.data.digits import digits
from graphgrow.data.evaluation import score
from graphgrow.data.parts import Data
from graphgrow.demo.narration import Narration
from graphgrow.demo.training import Settings, pass_over, train_to_plateau
from graphgrow.graph import Graph
from graphgrow.models import ResNet
from graphgrow.passes.deepen import Deepen
from graphgrow.records import StageRecord
from graphgrow.report import figure
from graphgrow.rewrite.contract import Mutation
from graphgrow.stage import run_stage
from graphgrow.store.folder import save
from graphgrow.store.tracing import trace
from graphgrow.train.reproducible import reproducible

STAGES = ("split", "widen", "add-skip", "deepen", "swap-activation", "settle-activation")
LEARNING_RATE = 3e-3


def build_model() -> ResNet:
    """The demo's base: a residual net for 1x8x8 images, 3 and 4 channels wide, too narrow for its task."""
    return ResNet(channels=1, widths=(3, 4), blocks=(1, 1))


def choose(graph: Graph, kind: str) -> Sequence[Mutation]:
    """What to do next, out of `graph.mutations(kind)`, by a fixed rule.

    The narrowest group is split, all are widened, the connection nearest to the output is added, the largest block
    that can be copied is, and a fresh one is put in front of the output; all activations are swapped and settled.
    """
    offered = list(graph.mutations(kind))
    if kind == "split":
        return sorted(offered, key=lambda mutation: graph.group(mutation.site_name).size)[:1]
    if kind == "deepen":
        copies = [mutation for mutation in offered if isinstance(mutation, Deepen) and mutation.kind == "copy"]
        largest = max(copies, key=lambda mutation: graph.cost(mutation).parameters)
        return [largest, next(mutation for mutation in reversed(offered) if mutation not in copies)]
    return offered[-1:] if kind == "add-skip" else offered


def run_demo(
    folder: str | os.PathLike[str],
    seed: int = 0,
    console: Console | None = None,
    *,
    stages: Sequence[str] = STAGES,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    repeats: int = 200,
) -> list[StageRecord]:
    """Grow a small residual net on scikit-learn's digits and write everything that comes of it.

    Accuracies are of a test part that neither the training nor its end depends on. The optimizer is one Adam for the
    whole run; every growth carries its state over. As a control the ungrown net is trained for as many epochs again.

    Args:
        folder: receives for each stage `NN-name.onnx` and `NN-name.json`, then `growth.png`, `growth.svg`,
            `control.json`, and the grown model in `grown/`, as `gg.save` writes it.
        seed: of the initial weights, the fresh weights and the order of the samples.
        console: where to tell about it; None is the terminal.
        stages: the pass of each growth stage.
        settings: of the training.
        repeats: timed runs of each exported file.

    Returns:
        The record of each stage, the base first.

    Raises:
        NotPreserved, ExportError, BenchmarkError: as `run_stage` does.
    """
    target = Path(folder)
    tell = Narration(console or Console())
    start = time.perf_counter()
    with reproducible(seed):
        run = _Run.start(seed, settings, tell)
        tell.opening(run.data, run.graph)
        records = [run.stage(target, "base", repeats)]
        control = copy.deepcopy((run.graph.module, run.optimizer))
        for kind in stages:
            records.append(run.stage(target, kind, repeats))
        alone = run.control(*control)
    (target / "control.json").write_text(json.dumps(alone, indent=1) + "\n", encoding="utf-8")
    pictures = [figure(records, target / f"growth.{suffix}") for suffix in ("png", "svg")]
    saved = save(run.graph, target / "grown")
    tell.closing(records, alone["accuracy"], pictures, saved, time.perf_counter() - start)
    return records


@dataclass
class _Run:
    """What goes from one stage to the next.

    Attributes:
        graph: the newest.
        epochs: behind the base so far.
    """

    data: Data
    graph: Graph
    optimizer: torch.optim.Adam
    generator: torch.Generator
    settings: Settings
    seed: int
    tell: Narration
    index: int = 0
    epochs: int = 0

    @classmethod
    def start(cls, seed: int, settings: Settings, tell: Narration) -> _Run:
        data = digits()
        graph = trace(build_model(), data.training.inputs[:2])
        optimizer = torch.optim.Adam(graph.module.parameters(), lr=LEARNING_RATE)
        return cls(data, graph, optimizer, torch.Generator().manual_seed(seed), settings, seed, tell)

    def stage(self, folder: Path, kind: str, repeats: int) -> StageRecord:
        mutations: Sequence[Mutation] = [] if kind == "base" else choose(self.graph, kind)
        self.tell.stage(self.index, kind, mutations)
        self.graph, record = run_stage(
            self.graph,
            mutations,
            folder=folder,
            index=self.index,
            name=kind,
            seed=self.seed,
            optimizer=self.optimizer,
            train=None if kind == "settle-activation" else self._train,  # a clean-up has nothing to learn
            evaluate=lambda graph: score(graph.module, self.data.test).accuracy,
            repeats=repeats,
        )
        self.tell.result(record)
        self.index += 1
        return record

    def _train(self, graph: Graph) -> None:
        arriving = pass_over(graph.module, self.optimizer, self.data, self.settings, self.generator)
        self.epochs += arriving
        with self.tell.training(self.settings.max_epochs + self.settings.settling) as watch:
            epochs = train_to_plateau(graph.module, self.optimizer, self.data, self.settings, self.generator, watch)
        self.epochs += epochs if self.index else 0

    def control(self, model: torch.nn.Module, optimizer: torch.optim.Adam) -> dict[str, float]:
        """Train the ungrown net for as many epochs as all growth stages had together."""
        self.tell.control(self.epochs)
        rising = max(0, self.epochs - self.settings.settling)
        settings = replace(self.settings, patience=rising, max_epochs=rising)
        with self.tell.training(self.epochs) as watch:
            train_to_plateau(model, optimizer, self.data, settings, self.generator, watch)
        return {"epochs": self.epochs, "accuracy": score(model, self.data.test).accuracy}
