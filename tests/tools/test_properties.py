from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphgrow as gg
from tools import properties
from tools.campaign import trial
from tools.campaign.counts import read
from tools.properties import Profile, go_on, run_batch


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model, one chain."""
    monkeypatch.setattr(properties, "MODELS", 1)
    monkeypatch.setattr(trial, "CHAINS", 1)
    monkeypatch.setattr(trial, "LENGTHS", (8,))


def test_a_batch_is_made_again_by_its_seed() -> None:
    first, second = run_batch(3, "a"), run_batch(3, "b")
    assert first.finds == []
    assert (first.counts, first.passes, first.lengths) == (second.counts, second.passes, second.lengths)
    assert first.counts["models"] > 0


def test_a_second_call_goes_on_behind_the_last_seed(tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    go_on(Profile(rewrites=1, chains=1, minutes=60), None, out, first=2)
    count = len(read(out))
    go_on(Profile(rewrites=1, chains=1, minutes=60), None, out)
    assert len(read(out)) == count
    assert [line["seed"] for line in read(out)] == list(range(2, 2 + count))


def test_all_that_is_verified_is_exported_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.Trial, "_exported", lambda self, graph: None)  # one takes seconds
    few, all_of_them = run_batch(3, "a"), run_batch(3, "a", exports=1.0)
    assert few.counts["exported to ONNX with parity"] == 0
    assert 0 < all_of_them.counts["exported to ONNX with parity"] == all_of_them.counts["verdicts"]
    assert few.passes == all_of_them.passes  # the same models and mutations


def test_every_mutation_alone_is_verified_in_all_modes_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.Trial, "chain", lambda self, length: None)
    asked: list[tuple[str, ...]] = []
    real = gg.verify

    def verify(*graphs: gg.Graph, modes: tuple[str, ...], **options: Any) -> gg.Verdict:
        asked.append(modes)
        return real(*graphs, modes="eval", **options)

    monkeypatch.setattr(gg, "verify", verify)
    batch = run_batch(3, "a", further=1.0)
    assert batch.counts["verdicts in further modes"] == batch.counts["verdicts"] == len(asked) > 0
    assert set(asked) == {trial.EVERYTHING}
