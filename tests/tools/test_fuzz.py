from __future__ import annotations

from pathlib import Path

import pytest

import graphgrow as gg
from tools import fuzz


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = gg.trace("graphgrow:mlp")
    return gg.save(gg.apply(base, "split(layers.0)"), tmp_path_factory.mktemp("fuzz") / "saved")


def test_what_is_valid_is_taken(folder: Path) -> None:
    kinds = [fuzz.check(data, folder) for data in fuzz.corpus(folder)]
    assert kinds == ["mutation"] * len(fuzz.TEXTS) + ["ledger", "folder"]


def test_mutated_bytes_are_refused_or_come_back(folder: Path) -> None:
    outcomes = fuzz.seeded(400, 0, folder)
    assert sum(outcomes.values()) == 400
    assert outcomes["refused"] > 200


def test_what_does_not_come_back_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphgrow.passes.widen.Widen.__str__", lambda self: "widen(another, extra=1)", raising=False)
    with pytest.raises(AssertionError, match="does not come back"):
        fuzz.check(b"widen(first, extra=1)", folder)
