"""Checkpoints: whole or not there, without pickle, and refused by name when they are damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from graphgrow.errors import TrainingError
from graphgrow.train.checkpoint import newest_checkpoint, recipe_text, refuse_another, write_checkpoint
from graphgrow.train.packing import pack, unpack

STATE: dict[str, Any] = {
    "step": 3,
    "rate": 0.1 + 0.2,
    "far": float("inf"),
    "names": ["a", "b"],
    "betas": (0.9, 0.999),
    "state": {0: {"exp_avg": torch.randn(2, 3), "step": torch.tensor(4.0)}, "nothing": None},
    "flags": torch.tensor([True, False]),
    "bytes": torch.get_rng_state(),
}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(a, b)) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and a == b


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 7, STATE)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.number, found.notes) == (7, ())
    assert _equal(found.state, STATE)


def test_what_no_checkpoint_can_hold_is_named() -> None:
    with pytest.raises(TrainingError, match=r"state\.a\.1 is of type set"):
        pack({"a": [1, {2}]})
    with pytest.raises(TrainingError, match="damaged"):
        unpack({"tensor": "missing"}, {})


def test_the_newest_are_kept_and_strangers_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for number in range(5):
        write_checkpoint(tmp_path, number, {"n": number}, keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"checkpoint-00000{n}.{end}" for n in (3, 4) for end in ("json", "safetensors")] + ["notes.txt"]
    assert newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("file", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "empty"])
def test_a_damaged_one_is_passed_over_by_name(tmp_path: Path, file: str, damage: str) -> None:
    for number in (1, 2):
        write_checkpoint(tmp_path, number, {"n": number, "t": torch.ones(50)})
    path = tmp_path / f"checkpoint-000002.{file}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    changed = {"cut": bytes(data[:-7]), "flipped": bytes(data), "empty": b""}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.state["n"] == 1
    if (file, damage) != ("json", "missing"):  # tensors without their head were never a checkpoint
        assert "checkpoint-000002" in found.notes[0]


def test_when_all_are_damaged_nothing_is_begun_anew_in_silence(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, STATE)
    (tmp_path / "checkpoint-000001.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"(?s)no checkpoint in .* is whole:.*checkpoint-000001.json is damaged"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("call", [0, 1])
def test_a_full_disk_is_named_and_the_old_one_stays_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Full at the first file of a checkpoint, or at the second."""
    write_checkpoint(tmp_path, 1, STATE)
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2 * call:  # each file is synced, and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"checkpoint-000002\.(json|safetensors) .*bytes\): No space left"):
        write_checkpoint(tmp_path, 2, {"n": 2})
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.number, found.notes) == (1, ())
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(TrainingError, match=r"cannot write checkpoints to .*checkpoints: File exists"):
        write_checkpoint(tmp_path / "checkpoints", 1, STATE)


def _rewritten(folder: Path, **changes: Any) -> None:
    """Change entries of the head of checkpoint 1, with a checksum that fits again."""
    path = folder / "checkpoint-000001.json"
    head = json.loads(json.loads(path.read_bytes())["head"]) | changes
    text = json.dumps(head)
    path.write_text(json.dumps({"head": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}))


def test_one_of_another_schema_is_not_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, STATE)
    _rewritten(tmp_path, schema=1_000)
    with pytest.raises(TrainingError, match=r"checkpoint-000001.json has schema 1000, this graphgrow reads \d+"):
        newest_checkpoint(tmp_path)


def test_tensors_that_were_never_safetensors_are_refused_though_their_checksum_fits(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, STATE)
    junk = b"no tensors"
    (tmp_path / "checkpoint-000001.safetensors").write_bytes(junk)
    _rewritten(tmp_path, tensors={"bytes": len(junk), "sha256": hashlib.sha256(junk).hexdigest()})
    with pytest.raises(TrainingError, match="the tensors of checkpoint 1 cannot be read"):
        newest_checkpoint(tmp_path)


@dataclass(frozen=True)
class Short:
    """A recipe."""

    steps: int


def test_checkpoints_of_another_kind_of_run_are_left_alone(tmp_path: Path) -> None:
    refuse_another(tmp_path, recipe_text(Short(3)), Short(3), "training")
    with pytest.raises(TrainingError, match=r"another training:\n  steps: 4 there, 3 here\nuse another folder"):
        refuse_another(tmp_path, recipe_text(Short(4)), Short(3), "training")
    with pytest.raises(TrainingError, match=r"but not of a training: .*epochs.*; use another folder"):
        refuse_another(tmp_path, '{"epochs": 3}', Short(3), "training")
