"""The demo in small: all stages of a few epochs, everything else as it is."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import graphgrow as gg
from graphgrow.data.digits import digits
from graphgrow.data.evaluation import score
from graphgrow.demo.digits import STAGES, build_model, choose, run_demo
from graphgrow.demo.training import Settings
from graphgrow.records import StageRecord

QUICK = Settings(patience=2, max_epochs=3, settling=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StageRecord], str]:
    """A finished run: its folder, its records, and what it said. Threads and random state are the user's own again."""
    folder = tmp_path_factory.mktemp("demo")
    console = Console(file=io.StringIO(), width=100)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with console.capture() as capture:
        records = run_demo(folder, console=console, settings=QUICK, repeats=3)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    return folder, records, capture.get()


def test_each_stage_grows_is_preserved_and_starts_where_the_one_before_ended(
    run: tuple[Path, list[StageRecord], str],
) -> None:
    _, records, _ = run
    assert [record.name for record in records] == ["base", *STAGES]
    swapped, settled = len(records[5].mutations), len(records[6].mutations)
    assert [len(record.mutations) for record in records[:5]] == [0, 1, 4, 1, 2]
    assert swapped == settled > 4
    for parent, child in itertools.pairwise(records):
        assert child.preserved is True
        assert child.parameters > parent.parameters or child.name == "settle-activation"
        assert child.accuracy_before == parent.accuracy_after


def test_everything_is_written(run: tuple[Path, list[StageRecord], str]) -> None:
    folder, records, _ = run
    stems = [f"{number:02d}-{name}" for number, name in enumerate(["base", *STAGES])]
    files = {f"{stem}.{suffix}" for stem in stems for suffix in ("onnx", "json")}
    assert {entry.name for entry in folder.iterdir()} == {
        *files,
        "control.json",
        "growth.png",
        "growth.svg",
        "grown",
    }
    stored = [StageRecord.from_json(json.loads((folder / f"{stem}.json").read_text())) for stem in stems]
    assert stored == records
    assert json.loads((folder / "control.json").read_text())["epochs"] > 0


def test_the_saved_model_has_the_accuracy_that_was_recorded(run: tuple[Path, list[StageRecord], str]) -> None:
    folder, records, _ = run
    grown = gg.load(folder / "grown", model=build_model())
    assert len(grown.ledger) == sum(len(record.mutations) for record in records)
    assert score(grown.module, digits().test).accuracy == records[-1].accuracy_after


def test_the_story_is_told(run: tuple[Path, list[StageRecord], str]) -> None:
    folder, records, said = run
    for words in ("898 for training", "split(stem)", "function preserved", "control", "growth.png"):
        assert words in said
    assert str(folder) in said
    assert f"{records[-1].accuracy_after:.1%}" in said


def test_what_is_chosen() -> None:
    graph = gg.trace(build_model(), torch.randn(2, 1, 8, 8))
    assert [str(mutation) for mutation in choose(graph, "split")] == ["split(stem)"]
    assert len(choose(graph, "widen")) == sum(group.frozen is None for group in graph.groups)
    copied, fresh = choose(graph, "deepen")
    assert (str(copied), str(fresh)) == ("deepen(stages.0.0, kind=copy)", "deepen(stages.1.0.relu2, kind=conv)")
    assert str(choose(graph, "add-skip")[0]).endswith("target=stages.1.0.relu2)")
