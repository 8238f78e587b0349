"""Checkpoints without pickle: a JSON file and a safetensors file each, whole or not there at all.

The tensors go first, the JSON file, which carries their checksum, is written last and is the commit point. So a crash
at any moment leaves the checkpoints that were there before.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

from graphgrow.errors import LedgerError, RecipeError, TrainingError
from graphgrow.recipes.tables import from_table, to_table
from graphgrow.store.files import digest, read_plain, write_atomically
from graphgrow.train.packing import pack, unpack

SCHEMA_VERSION = 5
_HEAD = re.compile(r"checkpoint-(\d{6})\.json")
_TENSORS = re.compile(r"checkpoint-(\d{6})\.safetensors")
_LARGEST_HEAD = 256 * 2**20
_LARGEST_TENSORS = 2**40


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a training.

    Attributes:
        number: counts up within a folder.
        state: nested dictionaries, lists and tuples of plain values and tensors.
        notes: damaged checkpoints that were passed over, with the reason.
    """

    number: int
    state: Any
    notes: tuple[str, ...] = ()


def write_checkpoint(folder: Path, number: int, state: Any, keep: int = 2) -> Path:
    """Write a checkpoint, and then remove all but the newest `keep`.

    Raises:
        TrainingError: if the state holds something that is no plain value and no tensor, or if a file cannot be
            written: the folder is read-only, the disk is full. The error names the file; the checkpoints that were
            there stay good.
    """
    packed, tensors = pack(state)
    data = tensor_bytes(tensors)
    stem = f"checkpoint-{number:06d}"
    head = {
        "format": "graphgrow checkpoint",
        "schema": SCHEMA_VERSION,
        "number": number,
        "tensors": {"file": f"{stem}.safetensors", "sha256": digest(data), "bytes": len(data)},
        "state": packed,
    }
    text = json.dumps(head).encode()
    whole = json.dumps({"sha256": digest(text), "head": text.decode()}).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{stem}.safetensors", data)
        write_atomically(folder / f"{stem}.json", whole)
        _forget(folder, keep)
    except LedgerError as error:
        raise TrainingError(f"{error}; the checkpoints that were there are good, resume when there is room") from error
    except OSError as error:
        raise TrainingError(f"cannot write checkpoints to {folder}: {error.strerror or error}") from error
    return folder / f"{stem}.json"


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there never was one.

    Damaged ones are passed over and named in `notes`.

    Raises:
        TrainingError: if there are checkpoints, and all of them are damaged.
    """
    numbers = sorted((int(match[1]) for match in map(_HEAD.fullmatch, _names(folder)) if match), reverse=True)
    notes: list[str] = []
    for number in numbers:
        try:
            state = _read(folder, number)
        except (LedgerError, TrainingError) as error:
            notes.append(str(error))
            continue
        return Checkpoint(number, state, tuple(notes))
    if notes:
        listed = "\n".join(notes)
        raise TrainingError(f"no checkpoint in {folder} is whole:\n{listed}\nstart anew in another folder")
    return None


def recipe_text(recipe: Any) -> str:
    """A recipe, a dataclass, as a checkpoint holds it."""
    return json.dumps(to_table(recipe))


def refuse_another(folder: Path, text: str, recipe: Any, what: str) -> None:
    """Refuse to go on with the checkpoints of another recipe.

    Args:
        folder: of the run, for the message.
        text: what `recipe_text` gave for the recipe that was followed there.
        recipe: that is to be followed now.
        what: a run of it is called.

    Raises:
        TrainingError: if they differ; says where.
    """
    try:
        theirs = from_table(type(recipe), json.loads(text), "their recipe")
    except RecipeError as error:
        raise TrainingError(f"{folder} holds checkpoints, but not of a {what}: {error}; use another folder") from None
    if theirs == recipe:
        return
    mine, other = (dataclasses.asdict(one) for one in (recipe, theirs))
    different = [f"{key}: {other[key]} there, {mine[key]} here" for key in mine if mine[key] != other[key]]
    listed = "\n  ".join(different)
    raise TrainingError(
        f"{folder} holds the checkpoints of another {what}:\n  {listed}\nuse another folder, or that recipe"
    )


def _read(folder: Path, number: int) -> Any:
    path = folder / f"checkpoint-{number:06d}.json"
    raw = read_plain(path, _LARGEST_HEAD)
    try:
        outer = json.loads(raw)
        text, checksum = outer["head"], outer["sha256"]
        sound = isinstance(text, str) and digest(text.encode()) == checksum
        head = json.loads(text) if sound else None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TrainingError(f"{path} is damaged: it is no checkpoint of graphgrow, or cut short") from None
    if head is None or head.get("format") != "graphgrow checkpoint":
        raise TrainingError(f"{path} is damaged: its checksum does not fit")
    if head["schema"] != SCHEMA_VERSION:
        raise TrainingError(f"{path} has schema {head['schema']!r}, this graphgrow reads {SCHEMA_VERSION}")
    entry = head["tensors"]
    data = read_plain(folder / f"checkpoint-{number:06d}.safetensors", _LARGEST_TENSORS)
    if len(data) != entry["bytes"] or digest(data) != entry["sha256"]:
        name = folder / f"checkpoint-{number:06d}.safetensors"
        raise TrainingError(f"{name} is damaged: {len(data):,} bytes of {entry['bytes']:,}, or another checksum")
    try:
        tensors: dict[str, torch.Tensor] = read_tensors(data)
    except SafetensorError as error:
        raise TrainingError(f"{folder}: the tensors of checkpoint {number} cannot be read: {error}") from error
    return unpack(head["state"], tensors)


def _forget(folder: Path, keep: int) -> None:
    """Remove all but the newest, heads first, and what a crash left: tensors without a head, files half written."""
    names = _names(folder)
    heads = sorted(int(match[1]) for match in map(_HEAD.fullmatch, names) if match)
    kept = set(heads[-keep:])
    for number in set(heads) - kept:
        (folder / f"checkpoint-{number:06d}.json").unlink(missing_ok=True)
    for match in map(_TENSORS.fullmatch, names):
        if match and int(match[1]) not in kept:
            (folder / match[0]).unlink(missing_ok=True)
    for name in names:
        if name.startswith(".checkpoint-") and name.endswith(".part"):
            (folder / name).unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
