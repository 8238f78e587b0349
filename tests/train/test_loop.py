"""The trainer: what it writes, and that being killed at any moment changes nothing of what it ends with.

Real processes are killed by SIGKILL, which they send to themselves at chosen places: in the middle of an epoch, of a
growth, of writing a file. `tools/kill_training.py` does the same at many random moments.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import graphgrow as gg
from graphgrow.data import evaluation
from graphgrow.data.names import load_data
from graphgrow.errors import ModeError, TrainingError
from graphgrow.models import MLP
from graphgrow.recipes.tables import from_table
from graphgrow.records import StageRecord, TrainingRecord
from graphgrow.train import loop, stages
from graphgrow.train.grower import Grower
from graphgrow.train.narration import Narration
from graphgrow.train.pace import Newcomers, Pace
from graphgrow.train.recipe import Recipe

RECIPE = from_table(
    Recipe,
    tomllib.loads("""
name = "tiny"
summary = "a small MLP on digits"
[model]
name = "graphgrow.models:MLP"
options = { channels = 1, image_size = 8, hidden = [6, 6] }
[data]
name = "digits"
[training]
epochs = 6
lr = 1e-2
batch_size = 128
average = 0.9
save_every = 3
[growth]
policy = "dnm"
options = { entropy = 0.1 }
interval = 2
stages = 1
every = 2
warm_up = 10
"""),
    "tiny",
)


def test_a_run_writes_its_records_and_the_model_that_it_measured(tmp_path: Path) -> None:
    record = loop.train(RECIPE, tmp_path, repeats=2)
    again = TrainingRecord.from_json(json.loads((tmp_path / "training.json").read_text()))
    assert again == record
    assert [stage.index for stage in record.stages] == [0, 1]
    assert [one.verdict for one in record.decisions] == ["grown"]
    assert record.stages[1].mutations == record.decisions[0].mutations
    assert all(stage.preserved and stage.export and stage.benchmark for stage in record.stages)
    assert record.stages[1].accuracy_before == pytest.approx(record.stages[0].accuracy_after or 0, abs=0.01)
    for stage in record.stages:
        stem = f"{stage.index:02d}-{stage.name}"
        assert (tmp_path / f"{stem}.onnx").exists()
        assert StageRecord.from_json(json.loads((tmp_path / f"{stem}.json").read_text())) == stage
    assert [one.epoch for one in record.epochs] == list(range(1, 7))
    assert record.epochs[-1].learning_rate < record.epochs[0].learning_rate
    steps = [898 * 3 * one.flops for one in record.epochs]
    assert record.training_flops == sum(steps)
    grown = gg.load(tmp_path / "grown", MLP(channels=1, image_size=8, hidden=(6, 6)))
    data = load_data("digits")
    right = (grown.module.eval()(data.test.inputs).argmax(1) == data.test.targets).double().mean()
    assert float(right) == pytest.approx(record.test_accuracy)
    assert (tmp_path / "training.png").stat().st_size > 10_000
    assert not (tmp_path / "checkpoints" / "checkpoint-000001.json").exists(), "old ones are removed"
    other = replace(RECIPE, training=replace(RECIPE.training, lr=0.5))
    with pytest.raises(TrainingError, match=r"another training:\n  training: .*0.01.* there, .*0.5"):
        loop.train(other, tmp_path)


@pytest.mark.parametrize(
    ("optimizer", "own", "steps"), [("adamw", None, 100), ("rmsprop", None, 200), ("rmsprop", 9, 9)]
)
def test_the_warm_up_suits_the_optimizer_where_the_recipe_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, own: int | None, steps: int
) -> None:
    paces: list[Pace] = []
    real = Newcomers.__init__

    def noted(newcomers: Newcomers, optimizer: torch.optim.Optimizer, pace: Pace) -> None:
        paces.append(pace)
        real(newcomers, optimizer, pace)

    monkeypatch.setattr(Newcomers, "__init__", noted)
    monkeypatch.setattr(loop._Run, "run", lambda run: run)
    assert RECIPE.growth is not None
    training, growth = replace(RECIPE.training, optimizer=optimizer), replace(RECIPE.growth, warm_up=own)
    loop.train(replace(RECIPE, training=training, growth=growth), tmp_path)
    assert paces == [Pace(warm_up=steps)]


def test_stages_that_are_listed_and_were_not_made_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "end_stage", _no_export)
    listed = {"stages": [["widen(layers.0, extra=9)"], ["widen(layers.0, extra=900)"]]}
    assert RECIPE.growth is not None
    growth = replace(RECIPE.growth, policy="progressive", options=listed, interval=1, stages=None, parameters=9_000)
    out = io.StringIO()
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=4), growth=growth)
    record = loop.train(recipe, tmp_path, narration=Narration(Console(file=out, width=100)))
    assert [decision.verdict for decision in record.decisions] == ["grown", "declined"]
    assert record.stages[1].flops > 2.1 * record.stages[0].flops, "more than the policy's growth"
    assert "parameters are more than the 9,000 allowed; it asks no more" in out.getvalue()
    assert "1 of 2 listed stages made: it was not time" in out.getvalue()
    wrong = replace(growth, options={"stages": [["widen(layers.7)"]]})
    with pytest.raises(TrainingError, match=r"the stage listed cannot be made: .*layers\.7"):
        loop.train(replace(recipe, growth=wrong), tmp_path / "other")
    assert not list((tmp_path / "other").glob("checkpoints/*")), "before anything was trained"


@pytest.mark.filterwarnings("ignore:this graph of")
def test_a_model_that_goes_two_ways_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    model = replace(RECIPE.model, name="tests.train.test_loop:TwoWays", options={})
    with pytest.raises(ModeError, match=r"TwoWays holds for train mode alone, and would be run in eval mode here"):
        loop.train(replace(RECIPE, model=model), tmp_path)
    assert not list(tmp_path.iterdir())


class TwoWays(nn.Module):
    """Puts out more in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> object:
        answer = self.map(x.flatten(1))
        return (answer, answer.sort().values) if self.training else answer


def test_a_compiled_network_grows_as_one_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "end_stage", _no_export)
    compiled: list[nn.Module] = []
    real = torch.compile

    def counted(module: nn.Module, **options: Any) -> Any:
        compiled.append(module)
        return real(module, **options)

    monkeypatch.setattr(torch, "compile", counted)
    epochs = replace(RECIPE.training, epochs=4)
    plain = loop.train(replace(RECIPE, training=epochs), tmp_path / "plain")
    fast = loop.train(replace(RECIPE, training=replace(epochs, compile="eager")), tmp_path / "fast")
    assert [decision.verdict for decision in fast.decisions] == ["grown"]
    assert len(compiled) == len({id(module) for module in compiled}) == 2, "once for each network"
    assert (fast.epochs, fast.decisions) == (plain.epochs, plain.decisions), (
        "that backend computes the same, to the bit"
    )


def test_half_precision_is_used_and_the_weights_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "end_stage", _no_export)
    seen: set[torch.dtype] = set()
    real = evaluation.loss_of

    def noted(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.add(logits.dtype)
        return real(logits, targets)

    monkeypatch.setattr(loop, "loss_of", noted)
    part = replace(RECIPE.training, precision="bfloat16")
    record = loop.train(replace(RECIPE, training=part), tmp_path)
    assert torch.bfloat16 in seen
    assert [decision.verdict for decision in record.decisions] == ["grown"]
    assert record.epochs[-1].training_loss < 0.8 * record.epochs[0].training_loss
    grown = gg.load(tmp_path / "grown", MLP(channels=1, image_size=8, hidden=(6, 6)))
    assert {tensor.dtype for tensor in grown.module.parameters()} == {torch.float32}


def test_a_stage_that_did_not_pay_is_taken_back_and_interrupted_before_that_it_is_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "end_stage", _no_export)
    assert RECIPE.growth is not None
    growth = replace(RECIPE.growth, policy="net2net", options={}, rollback_after=2, rollback_margin=-0.99)
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=5), growth=growth)
    whole = loop.train(recipe, tmp_path / "whole")
    _interrupt_in_step(8 * 3 + 2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, tmp_path / "parts")
    parts = loop.train(recipe, tmp_path / "parts")
    assert [decision.verdict for decision in whole.decisions] == ["grown", "rolled back"]
    assert set(whole.decisions[1].numbers) == {"metric_before", "metric_after", "margin"}
    assert [stage.name for stage in whole.stages] == ["base", "net2net", "rolled-back"]
    assert all(stage.accuracy_after is not None for stage in whole.stages)
    sizes = [epoch.parameters for epoch in whole.epochs]
    assert sizes[0] == sizes[4] < sizes[2] == sizes[3]
    assert (parts.epochs, parts.decisions) == (whole.epochs, whole.decisions)
    weights = [sorted(path.name for path in (tmp_path / name / "grown").iterdir()) for name in ("whole", "parts")]
    assert weights[0] == weights[1], "the file's name carries its checksum"


def test_what_is_frozen_stays_so_when_a_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "end_stage", _no_export)
    model = replace(RECIPE.model, name="tests.train.test_loop:frozen_mlp", options={})
    recipe = replace(RECIPE, model=model, training=replace(RECIPE.training, epochs=4))
    whole = loop.train(recipe, tmp_path / "whole")
    _interrupt_in_step(8 * 3 + 2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, tmp_path / "parts")
    assert loop.train(recipe, tmp_path / "parts").epochs == whole.epochs
    weights = [sorted(path.name for path in (tmp_path / name / "grown").iterdir()) for name in ("whole", "parts")]
    assert weights[0] == weights[1], "the file's name carries its checksum"
    grown = gg.load(tmp_path / "parts" / "grown", frozen_mlp())
    fixed = {name for name, one in grown.module.named_parameters() if not one.requires_grad}
    assert fixed == {"layers.0.bias", "head.bias"}
    assert torch.equal(grown.module.get_parameter("head.bias"), torch.zeros(10))


def frozen_mlp() -> MLP:
    net = MLP(channels=1, image_size=8, hidden=(6, 6))
    for name in ("layers.0.bias", "head.bias"):
        nn.init.zeros_(net.get_parameter(name)).requires_grad_(False)
    return net


def _interrupt_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come in so many steps from now."""
    real, calls = loop._Run._step, 0

    def interrupted(run: Any, *args: torch.Tensor) -> float:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return real(run, *args)

    monkeypatch.setattr(loop._Run, "_step", interrupted)


# -- kill -9 -----------------------------------------------------------------------------------------------------


def _no_export(graph: Any, record: StageRecord, **_: Any) -> StageRecord:
    """Exports take most of the time here, and are whole or not there by tests of their own."""
    return record


def _killed_at(owner: Any, name: str, call: int) -> None:
    """Let the call-th call of a function end the process, half way: behind what it does first."""
    real: Callable[..., Any] = getattr(owner, name)
    count = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, wrapped)


def _process(folder: Path, place: str, call: int) -> None:
    torch.set_num_threads(1)
    setattr(stages, "end_stage", _no_export)  # noqa: B010
    places = {
        "a training step": (loop._Run, "_step"),
        "carrying over to the average": (Grower, "follow"),
        "behind a growth, before its checkpoint": (loop._Run, "_checkpoint"),
        "syncing a file": (os, "fsync"),
        "putting a file in place": (Path, "replace"),
    }
    if place:
        _killed_at(*places[place], call)
    loop.train(RECIPE, folder)


def _run(folder: Path, place: str = "", call: int = 0) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["graphgrow.train.loop", "sklearn.datasets", "sklearn.model_selection"])
    process = context.Process(target=_process, args=(folder, place, call))
    process.start()
    process.join(600)  # a limit for what hangs, wide for busy machines
    return process.exitcode


def test_killed_at_any_moment_it_ends_with_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    assert _run(tmp_path / "whole") == 0
    kills = [
        ("a training step", 3),  # before there is any checkpoint
        ("a training step", 15),  # in the second epoch, which is observed, between two checkpoints; behind it it grows
        ("carrying over to the average", 1),
        ("behind a growth, before its checkpoint", 1),
        ("syncing a file", 3),
        ("putting a file in place", 2),
        ("a training step", 12),  # behind the growth
    ]
    for place, call in kills:
        assert _run(tmp_path / "killed", place, call) == -signal.SIGKILL, place
    assert _run(tmp_path / "killed") == 0
    whole, killed = (
        TrainingRecord.from_json(json.loads((tmp_path / name / "training.json").read_text()))
        for name in ("whole", "killed")
    )
    assert killed.epochs == whole.epochs
    assert killed.decisions == whole.decisions
    assert killed.test_accuracy == whole.test_accuracy
    weights = [sorted(path.name for path in (tmp_path / name / "grown").iterdir()) for name in ("whole", "killed")]
    assert weights[0] == weights[1], "the file's name carries its checksum"
    left = {path.suffix for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert left == {".json", ".safetensors"}, "nothing half written stays"
