"""Grown models on disk: `ledger.json` and a safetensors file, no pickle.

The tensors go first, under a name that carries their checksum; `ledger.json` names them and is written last, so
that a crash at any point leaves the model that was there before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import nn

from graphgrow.errors import GraphGrowError, LedgerError
from graphgrow.graph import Graph
from graphgrow.network.ledger import Ledger
from graphgrow.network.network import require_network
from graphgrow.network.own import own
from graphgrow.rewrite.apply import replay as replay_entries
from graphgrow.rewrite.text import mutations_of
from graphgrow.store.files import digest, read_plain, write_atomically
from graphgrow.store.inputs import inputs_from_data, inputs_to_data
from graphgrow.store.names import KNOWN_SOURCES, build
from graphgrow.store.tensors import install, unique_tensors
from graphgrow.store.tracing import trace

SCHEMA_VERSION = 1
LEDGER_FILE = "ledger.json"
_KEYS = {"format", "schema", "base", "model", "inputs", "training", "frozen", "ledger", "weights", "checksum"}
_MODE = "mode"  # in which alone the graph is the model's; left out where it is so in both
_WEIGHTS_NAME = re.compile(r"weights-[0-9a-f]{16}\.safetensors")
_LARGEST_LEDGER = 64 * 2**20
_LARGEST_WEIGHTS = 2**40


def save(graph: Graph, folder: str | Path) -> Path:
    """Write a graph: its ledger, its input specification and all its tensors.

        gg.save(grown, "runs/grown")
        again = gg.load("runs/grown", model=model)  # of a model by name the folder is enough: gg.load("runs/grown")

    Args:
        graph: the graph; its base is remembered by name if it was traced from one.
        folder: made where it is missing; a graph saved there before is replaced in one step.

    Returns:
        The folder.

    Raises:
        Unsupported: if it is no graph.
        LedgerError: if something cannot be written, or an input of the model cannot be stored as JSON.
    """
    require_network(graph, "gg.save")
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"cannot make the folder {target}: {error.strerror}; choose another place") from error
    data = tensor_bytes(unique_tensors(graph.module))
    checksum = digest(data)
    weights = f"weights-{checksum[:16]}.safetensors"
    header = {
        "format": "graphgrow",
        "schema": SCHEMA_VERSION,
        "base": graph.base,
        "model": type(graph.module).__name__,
        "inputs": inputs_to_data(graph.base_inputs or graph.inputs),
        "training": graph.module.training,
        **({_MODE: next(iter(graph.modes))} if len(graph.modes) == 1 else {}),
        "frozen": [name for name, p in graph.module.named_parameters() if not p.requires_grad],
        "ledger": json.loads(graph.ledger.to_json()),
        "weights": {"file": weights, "sha256": checksum, "bytes": len(data)},
    }
    write_atomically(target / weights, data)
    write_atomically(target / LEDGER_FILE, json.dumps(header | {"checksum": checksum_of(header)}, indent=1).encode())
    with contextlib.suppress(OSError):  # the graph is saved; what it replaced only takes room
        for stale in target.glob("weights-*.safetensors"):
            if stale.name != weights and _WEIGHTS_NAME.fullmatch(stale.name):
                stale.unlink(missing_ok=True)
    return target


def load(
    folder: str | Path,
    model: nn.Module | None = None,
    leaves: Sequence[type[nn.Module] | str] = (),
    way: str = "auto",
) -> Graph:
    """Read a saved graph: rebuild its structure from base and ledger, and take the stored tensors.

    Args:
        folder: what `save` wrote.
        model: the base; not needed for `graphgrow:`, `torchvision:` and `timm:` models. It is not changed.
        leaves: as they were given to `gg.trace`.
        way: likewise.

    Raises:
        LedgerError: if the folder is missing, damaged, foreign or newer, or does not fit the model.
    """
    source = Path(folder)
    if not source.is_dir():
        raise LedgerError(f"there is no folder {source}")
    header = _read_header(source / LEDGER_FILE)
    ledger = Ledger.from_data(header["ledger"])
    mutations_of(ledger)  # before anything is built
    tensors = _read_weights(source, header["weights"])
    base = _base_model(source, header, model)
    inputs = inputs_from_data(header["inputs"])
    args, kwargs = inputs.sample()
    try:
        with _in_mode(base, header.get(_MODE)):
            captured = trace(base, args, kwargs, leaves, way)
        graph = replay_entries(dataclasses.replace(captured, inputs=inputs), ledger)
    except GraphGrowError as error:
        raise LedgerError(f"{source} does not fit its base model {header['model']}: {error}") from error
    if len(ledger) == 0:  # nothing was replaced yet: a module of its own, so that the base keeps its tensors
        graph = own(graph)
    install(str(source), graph.module, tensors, set(header["frozen"]))
    graph.module.train(header["training"])
    return dataclasses.replace(graph, base=header["base"])


@contextlib.contextmanager
def _in_mode(model: nn.Module, mode: str | None) -> Iterator[None]:
    """The model in a mode, where one is given, and afterwards as it was."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        if mode is not None:
            model.train(mode == "train")
        yield
    finally:
        for part, training in modes:
            part.training = training


def _read_header(path: Path) -> dict[str, Any]:
    raw = read_plain(path, _LARGEST_LEDGER)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{path} is damaged: {error}") from None
    if not isinstance(header, dict) or header.get("format") != "graphgrow":
        raise LedgerError(f"{path} was not written by graphgrow")
    version = header.get("schema")
    if type(version) is not int or version < 1:
        raise LedgerError(f"{path} is damaged: its schema version is {version!r}")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} has schema {version}, this graphgrow reads up to {SCHEMA_VERSION}; install a newer one"
        )
    if set(header) - {_MODE} != _KEYS:
        raise LedgerError(f"{path} is damaged: unknown or missing keys {sorted(set(header) - {_MODE} ^ _KEYS)}")
    strings = isinstance(header["frozen"], list) and all(isinstance(name, str) for name in header["frozen"])
    if not strings or not isinstance(header["training"], bool) or not isinstance(header["base"], (str, type(None))):
        raise LedgerError(f"{path} is damaged: `frozen`, `training` or `base` has another type")
    if header.get(_MODE) not in (None, "train", "eval"):
        raise LedgerError(f"{path} is damaged: its mode is {header[_MODE]!r:.80}")
    if header["checksum"] != checksum_of(header):
        raise LedgerError(f"{path} is damaged: it has another checksum than what is written in it")
    return header


def checksum_of(header: Mapping[str, Any]) -> str:
    """The checksum of everything that `ledger.json` says, itself aside: SHA-256 of its JSON with sorted keys."""
    plain = {key: value for key, value in header.items() if key != "checksum"}
    return digest(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def _read_weights(folder: Path, entry: Any) -> dict[str, torch.Tensor]:
    if not isinstance(entry, dict) or set(entry) != {"file", "sha256", "bytes"}:
        raise LedgerError(f"{folder / LEDGER_FILE} is damaged: `weights` reads {entry!r:.80}")
    name = entry["file"]
    if not isinstance(name, str) or not _WEIGHTS_NAME.fullmatch(name):
        raise LedgerError(f"{folder / LEDGER_FILE} names a weights file outside its form: {name!r:.80}")
    data = read_plain(folder / name, _LARGEST_WEIGHTS)
    if len(data) != entry["bytes"] or digest(data) != entry["sha256"]:
        raise LedgerError(
            f"{folder / name} is damaged: it has {len(data):,} bytes of {entry['bytes']!r:.20}, and another checksum"
        )
    try:
        return read_tensors(data)
    except SafetensorError as error:
        raise LedgerError(f"{folder / name} is not a safetensors file: {error}") from error


def _base_model(folder: Path, header: dict[str, Any], model: nn.Module | None) -> nn.Module:
    if model is not None:
        return model
    name = header["base"]
    if name is None or name.partition(":")[0] not in KNOWN_SOURCES:
        kind = header["model"]
        raise LedgerError(
            f"{folder} was grown from a {kind} of your own; pass it: gg.load(folder, model={kind}(...)), or, on the "
            "command line, --base package.module:factory"
        )
    return build(name)[0]
