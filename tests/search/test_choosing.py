"""A whole differentiable search: rounds, growth in between, the gap, and a ledger that rebuilds what came out.

Real processes are killed by SIGKILL, which they send to themselves at chosen places: in each loop of steps, between
them, while a file is written. `tools/kill_training.py` does the same at many random moments.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import graphgrow as gg
from graphgrow.data.evaluation import score
from graphgrow.data.names import load_data
from graphgrow.errors import NotPreserved, RecipeError, SearchError, TrainingError
from graphgrow.layers import Choice
from graphgrow.search import alternation, choosing, training
from graphgrow.search.choosing import Quiet, choose, open_sites
from graphgrow.search.recipe import Alternation, Choosing, Task, read_recipe, recipe_names
from tests.preserved import assert_same_bits
from tests.search.small import data, model

TASK = Task("tests.search.small:model", "tests.search.small:data")
RECIPE = Choosing(
    TASK, choices=("conv-5", "gelu", "max-pool"), rounds=2, grow=("widen",), base=20, finish=10,
    alternation=Alternation(steps=12, every=1, warm_up=0.25, learning_rate=0.2),
)  # fmt: skip


def test_rounds_are_told_and_the_ledger_rebuilds_the_network(tmp_path: Path) -> None:
    chosen = choose(RECIPE)
    first, second = chosen.rounds
    assert first.grown == ()
    assert [text.partition("(")[0] for text in second.grown] == ["widen"]
    for record in chosen.rounds:
        assert record.choices
        for choice in record.choices:
            assert choice.kept in choice.names
            assert len(choice.shares) == len(choice.steps) > 10
            assert len(choice.shares[0]) == len(choice.names)
    parts = load_data(TASK.data)
    assert second.accuracy == score(chosen.graph.module, parts.validation).accuracy
    assert second.test == score(chosen.graph.module, parts.test).accuracy
    assert second.parameters == chosen.graph.parameter_count
    assert not any(isinstance(part, Choice) for part in chosen.graph.module.modules())
    words = [entry.mutation.partition("(")[0] for entry in chosen.graph.ledger]
    assert words.count("mix-operators") == words.count("settle-operators") == sum(len(r.choices) for r in chosen.rounds)
    loaded = gg.load(gg.save(chosen.graph, tmp_path), model())
    assert_same_bits(loaded.module, chosen.graph.module)


def test_both_calls_of_an_activation_may_be_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call's name rests on the first being there: settling the first took it away."""
    monkeypatch.setattr(choosing, "decided", lambda sites, share: [1] * len(sites))
    task = Task("tests.search.small:Twice", TASK.data)
    chosen = choose(replace(RECIPE, task=task, choices=("gelu",), rounds=1, base=2, finish=2))
    assert [(choice.site, choice.kept) for choice in chosen.rounds[0].choices] == [("relu", "gelu"), ("relu@2", "gelu")]
    assert "relu" not in dict(chosen.graph.module.named_modules())


def test_it_follows_from_the_seed() -> None:
    short = replace(RECIPE, rounds=1)
    torch.manual_seed(1)
    first = choose(short)
    torch.manual_seed(2)
    again = choose(short)
    assert_same_bits(first.graph.module, again.graph.module)
    assert first.rounds[0].choices == again.rounds[0].choices


def test_the_gap_is_what_closing_changes() -> None:
    """With hardly any training the mixture is far from one operator, and closing it is seen."""
    record = choose(replace(RECIPE, rounds=1, alternation=replace(RECIPE.alternation, steps=2))).rounds[0]
    assert record.loss_open != record.loss_closed
    sure = replace(RECIPE.alternation, steps=60, cold=1e-3, learning_rate=0.5, warm_up=0.0)
    record = choose(replace(RECIPE, rounds=1, alternation=sure)).rounds[0]
    assert record.loss_open == pytest.approx(record.loss_closed, abs=1e-3)


def test_a_random_choice_has_the_same_steps_and_no_course() -> None:
    record = choose(replace(RECIPE, rounds=1, decide="random")).rounds[0]
    assert all(choice.shares == () for choice in record.choices)


def test_sites_and_choices_are_chosen_by_name() -> None:
    graph = gg.trace(model(), data().training.inputs[:2])
    assert [str(m) for m in open_sites(graph, ["0"], ["conv-5", "gelu"])] == ["mix-operators(0, choices=[conv-5])"]
    assert [m.site for m in open_sites(graph, ["*"], ["conv-5", "gelu"])] == ["0", "2"]
    with pytest.raises(SearchError, match="no site named conv9 offers one of the choices"):
        open_sites(graph, ["conv9"], [])


def test_what_is_refused() -> None:
    with pytest.raises(RecipeError, match="decide is 'best'"):
        replace(RECIPE, decide="best")
    with pytest.raises(RecipeError, match="the temperature falls from hot to cold"):
        Choosing(TASK, alternation=Alternation(hot=0.1, cold=1.0))
    with pytest.raises(SearchError, match="settle-activation offers no mutation in round 1"):
        choose(replace(RECIPE, grow=("settle-activation",)))


def test_the_recipes_that_come_along_are_read() -> None:
    assert "digits" in recipe_names("search")
    for name in recipe_names("search"):
        assert read_recipe(Choosing, "search", name).rounds >= 1


def test_settling_that_changes_the_function_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: gg.Graph) -> gg.Graph:
        changed = gg.apply(graph, "widen(0, extra=1)", share=False)
        with torch.no_grad():
            changed.module.get_parameter("4.bias").add_(1e-3)
        return changed

    monkeypatch.setattr("graphgrow.search.choosing.clean", wrong)
    with pytest.raises(NotPreserved, match=r"widen\(0, extra=1\): NOT preserved"):
        choose(replace(RECIPE, rounds=1, choices=("gelu",)))


# -- kill -9 -----------------------------------------------------------------------------------------------------

KILLED = replace(RECIPE, save_every=5)  # base 20 steps; rounds of 12 and 10


def _killed_at(owner: Any, name: str, call: int) -> None:
    """Let the call-th call of a function end the process before it does anything."""
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
    places = {
        "training": (training, "loss_of"),
        "warming up": (alternation, "_warm_up"),
        "choosing": (alternation, "_step"),
        "deciding": (choosing, "decided"),
        "settling": (choosing, "clean"),
        "checkpoint": (choosing, "write_checkpoint"),
        "syncing a file": (os, "fsync"),
        "putting a file in place": (Path, "replace"),
        "removing an old file": (Path, "unlink"),
    }
    if place:
        _killed_at(*places[place], call)
    chosen = choose(KILLED, folder=folder)
    gg.save(chosen.graph, folder / "chosen")
    records = [replace(record, seconds=0.0).to_json() for record in chosen.rounds]
    (folder / "told.json").write_text(json.dumps([records, chosen.before.loss, chosen.test]))


def _run(folder: Path, place: str = "", call: int = 0) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["graphgrow.search.choosing", "tests.search.small"])
    process = context.Process(target=_process, args=(folder, place, call))
    process.start()
    process.join(120)
    return process.exitcode


def test_killed_at_any_moment_it_ends_with_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    assert _run(tmp_path / "whole") == 0
    kills = [
        ("training", 3),  # of the base, before there is any checkpoint
        ("training", 18),  # of the base, behind step 15
        ("choosing", 9),  # behind step 10 of a round: three are of the warm-up, then they go in turns
        ("syncing a file", 3),  # of a checkpoint's tensors, their folder, its head
        ("putting a file in place", 2),
        ("settling", 1),
        ("removing an old file", 2),
        ("choosing", 12),  # of the second round, which grew
        ("training", 7),  # behind it
    ]
    for place, call in kills:
        assert _run(tmp_path / "killed", place, call) == -signal.SIGKILL, (place, call)
    assert _run(tmp_path / "killed") == 0
    told, found = ((tmp_path / name / "told.json").read_text() for name in ("whole", "killed"))
    assert found == told
    weights = [sorted(path.name for path in (tmp_path / name / "chosen").iterdir()) for name in ("whole", "killed")]
    assert weights[0] == weights[1], "the file's name carries its checksum"
    ledgers = [json.loads((tmp_path / name / "chosen" / "ledger.json").read_text()) for name in ("whole", "killed")]
    assert ledgers[0] == ledgers[1]
    left = {path.suffix for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert left == {".json", ".safetensors"}, "nothing half written stays"


class Told(Quiet):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, int]] = []

    def resumed(self, index: int, steps: int, notes: Sequence[str]) -> None:
        self.lines.append((index, steps, len(notes)))

    def trained(self, graph: object, found: object) -> None:
        raise AssertionError("the base is not trained again")


def test_a_search_that_has_ended_is_not_made_again_and_another_is_refused(tmp_path: Path) -> None:
    short = replace(KILLED, rounds=1)
    first = choose(short, folder=tmp_path)
    told = Told()
    again = choose(short, told, tmp_path)
    assert_same_bits(again.graph.module, first.graph.module)
    assert again.rounds == first.rounds
    assert again.before == first.before
    newest = max((tmp_path / "checkpoints").glob("*.json"))
    newest.write_text("{}")
    last = choose(short, told, tmp_path)
    assert_same_bits(last.graph.module, first.graph.module)
    assert told.lines == [(1, 0, 0), (0, 10, 1)]
    with pytest.raises(TrainingError, match=r"another search:\n  seed: 0 there, 1 here\nuse another folder"):
        choose(replace(short, seed=1), folder=tmp_path)


def test_what_is_frozen_stays_so_when_a_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(KILLED, task=Task("tests.search.test_choosing:frozen_model", TASK.data), rounds=1)
    whole = choose(recipe)
    real, calls = training.train, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # the training behind the choice
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(choosing, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        choose(recipe, folder=tmp_path)
    parts = choose(recipe, folder=tmp_path)
    assert_same_bits(parts.graph.module, whole.graph.module)
    fixed = {name for name, one in parts.graph.module.named_parameters() if not one.requires_grad}
    assert fixed == {"1.weight", "1.bias"}
    assert torch.equal(parts.graph.module.get_parameter("1.weight"), torch.ones(2))


def frozen_model() -> torch.nn.Module:
    net = model()
    net[1].requires_grad_(False)
    return net
