"""Saving and loading: everything comes back; damage, foreign files and newer formats are refused."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

import graphgrow as gg
from graphgrow.ir.inputs import InputSpec
from graphgrow.store import files
from graphgrow.store import folder as store
from graphgrow.store.files import digest
from graphgrow.store.inputs import inputs_to_data


def grown() -> gg.Graph:
    graph = gg.trace("graphgrow:resnet")
    return gg.apply(graph, ["widen(stem, extra=2)", "split(stages.1.0.conv1, units=[0, 3], copies=3)"], seed=5)


class Tied(nn.Module):
    """A parameter under two names, one that is frozen, a mode and a keyword input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.second.weight = self.first.weight
        self.last.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        result: torch.Tensor = self.last(self.second(self.first(x).relu()).relu()) * scale
        return result


def test_a_named_model_comes_back_without_its_base(tmp_path: Path) -> None:
    graph = grown()
    gg.save(graph, tmp_path)
    again = gg.load(tmp_path)
    assert again.ledger == graph.ledger
    assert again.text() == graph.text()
    assert again.base == "graphgrow:resnet"
    mine, other = graph.module.state_dict(), again.module.state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[k], other[k]) for k in mine)
    assert again.inputs == graph.inputs
    assert not list(tmp_path.glob("*.pt"))
    assert len(list(tmp_path.iterdir())) == 2


def test_trained_numbers_come_from_the_file(tmp_path: Path) -> None:
    graph = grown()
    with torch.no_grad():
        for parameter in graph.module.parameters():
            parameter.add_(0.01)
    gg.save(graph, tmp_path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(gg.load(tmp_path).module.eval()(x), graph.module.eval()(x))


@pytest.mark.parametrize("mutations", [[], ["widen(last, extra=1)"], ["widen(second, extra=2)"]])
def test_a_model_of_ones_own(tmp_path: Path, mutations: list[str]) -> None:
    model = Tied().eval()
    graph = gg.trace(model, torch.randn(3, 6), {"scale": 2.0})
    try:
        graph = gg.apply(graph, mutations)
    except gg.Declined:
        mutations = []  # outputs and tied squares cannot grow; the folder must still work
    gg.save(graph, tmp_path)
    with pytest.raises(gg.LedgerError, match=r"pass it: gg.load.*--base package.module:factory"):
        gg.load(tmp_path)
    base = Tied()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    again = gg.load(tmp_path, model=base)
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    x = torch.randn(4, 6)
    assert torch.equal(again.module(x, 2.0), graph.module(x, 2.0))
    assert again.module.get_parameter("first.weight") is again.module.get_parameter("second.weight")
    assert not again.module.get_parameter("last.bias").requires_grad
    assert not again.module.training


def test_a_graph_by_dynamo_is_loaded_by_dynamo(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = gg.apply(gg.trace(model, torch.randn(2, 3), way="dynamo"), "widen(0, extra=2)")
    gg.save(graph, tmp_path)
    again = gg.load(tmp_path, model, way="dynamo")
    assert (again.way, gg.load(tmp_path, model).way) == ("dynamo", "fx")
    x = torch.randn(5, 3)
    assert torch.equal(again.module(x), graph.module(x))
    assert gg.replay(model, x, graph.ledger, way="dynamo").way == "dynamo"


def test_a_second_save_replaces_the_first(tmp_path: Path) -> None:
    graph = grown()
    gg.save(gg.trace("graphgrow:resnet"), tmp_path)
    gg.save(graph, tmp_path)
    assert len(list(tmp_path.glob("weights-*"))) == 1
    assert gg.load(tmp_path).ledger == graph.ledger


def test_a_crash_before_the_ledger_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = gg.trace("graphgrow:resnet")
    gg.save(base, tmp_path)
    original = files.write_atomically

    def crash(path: Path, data: bytes) -> None:
        if path.name == store.LEDGER_FILE:
            raise KeyboardInterrupt
        original(path, data)

    monkeypatch.setattr(store, "write_atomically", crash)
    with pytest.raises(KeyboardInterrupt):
        gg.save(grown(), tmp_path)
    monkeypatch.undo()
    assert len(gg.load(tmp_path).ledger) == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    gg.save(gg.apply(gg.trace("graphgrow:mlp"), "split(layers.0)"), path)
    return path


class Auxiliary(nn.Module):
    """A second head in train mode alone, as GoogLeNet has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.second = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).relu()
        result: torch.Tensor = self.last(hidden) + (self.second(hidden) if self.training else 0)
        return result


@pytest.mark.filterwarnings("ignore:this graph of")
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_graph_of_one_mode_comes_back_whatever_mode_its_base_is_in(tmp_path: Path, mode: str) -> None:
    """GoogLeNet, built by name, is in train mode: its graph of eval mode could not be loaded."""
    model = Auxiliary().train(mode == "train")
    grown = gg.apply(gg.trace(model, torch.randn(2, 3)), "widen(first, extra=2)")
    gg.save(grown, tmp_path)
    base = Auxiliary().train(mode != "train")
    again = gg.load(tmp_path, base)
    assert again.modes == grown.modes == {mode}
    assert base.training is (mode != "train")
    assert again.text() == grown.text()


def copy_of(saved: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    for file in saved.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def apply(folder: Path) -> None:
        header = json.loads((folder / "ledger.json").read_text())
        change(header)
        header["checksum"] = store.checksum_of(header)  # whoever means harm signs it
        (folder / "ledger.json").write_text(json.dumps(header))

    return apply


def weights(folder: Path) -> Path:
    return next(folder.glob("weights-*"))


def weigh(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Other weights, with the checksum that they have."""

    def apply(folder: Path) -> None:
        data = change(weights(folder).read_bytes())
        weights(folder).unlink()
        name = f"weights-{digest(data)[:16]}.safetensors"
        (folder / name).write_bytes(data)
        edit(lambda h: h.update(weights={"file": name, "sha256": digest(data), "bytes": len(data)}))(folder)

    return apply


def _first(**options: Any) -> Callable[[Path], None]:
    return edit(lambda h: h["inputs"]["args"].__setitem__(0, options))


def _nested(depth: int) -> Any:
    return {"value": 1} if not depth else {"list": [_nested(depth - 1)]}


def _renamed(data: bytes) -> bytes:
    return data.replace(b"layers.0.bias", b"layers.0.base")


def _reshaped(data: bytes) -> bytes:
    tensors = load_tensors(data)
    return save_tensors({name: t[:1].clone() if name == "layers.0.bias" else t for name, t in tensors.items()})


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an unknown mode": (edit(lambda h: h.update(mode="both")), "its mode is 'both'"),
    "no ledger": (lambda f: (f / "ledger.json").unlink(), "missing"),
    "no weights": (lambda f: weights(f).unlink(), "missing"),
    "truncated weights": (lambda f: weights(f).write_bytes(weights(f).read_bytes()[:-7]), "damaged"),
    "a flipped bit": (
        lambda f: weights(f).write_bytes(weights(f).read_bytes()[:-1] + bytes([weights(f).read_bytes()[-1] ^ 1])),
        "damaged",
    ),
    "truncated ledger": (lambda f: (f / "ledger.json").write_bytes((f / "ledger.json").read_bytes()[:50]), "damaged"),
    "not JSON": (lambda f: (f / "ledger.json").write_bytes(b"\x80\x04pickle"), "damaged"),
    "foreign JSON": (lambda f: (f / "ledger.json").write_text('{"a": 1}'), "not written by graphgrow"),
    "newer": (edit(lambda h: h.update(schema=99)), "newer"),
    "unknown key": (edit(lambda h: h.update(extra=1)), "unknown or missing"),
    "outside path": (edit(lambda h: h["weights"].update(file="../../etc/passwd")), "outside its form"),
    "an option of another kind": (
        edit(lambda h: h["ledger"]["entries"][0].update(mutation="split(a, copies=b)")),
        "wants int",
    ),
    "unknown pass": (edit(lambda h: h["ledger"]["entries"][0].update(mutation="run(a)")), "no pass"),
    "hostile mutation": (
        edit(lambda h: h["ledger"]["entries"][0].update(mutation="__import__('os')")),
        "cannot be read",
    ),
    "another base": (edit(lambda h: h.update(base="graphgrow:vgg")), "does not fit|other tensors"),
    "base by import": (edit(lambda h: h.update(base="os:getcwd")), "pass it"),
    "boxes of three": (
        edit(lambda h: h["inputs"]["args"][0].update(order="boxes", dtype="int64", shape=[2, 3])),
        "damaged",
    ),
    "weights in a row": (edit(lambda h: h.update(weights=["a"])), r"`weights` reads \['a'\]"),
    "weights that are none": (weigh(lambda data: b"no tensors at all"), "is not a safetensors file"),
    "weights of other names": (weigh(_renamed), "holds other tensors than its ledger builds: layers.0.ba"),
    "weights of other shapes": (weigh(_reshaped), r"`layers.0.bias` is \(1,\) where the ledger builds"),
    "frozen by a number": (edit(lambda h: h.update(frozen=[1])), "has another type"),
    "training by a word": (edit(lambda h: h.update(training="yes")), "has another type"),
    "base by a number": (edit(lambda h: h.update(base=1)), "has another type"),
    "inputs in a row": (edit(lambda h: h.update(inputs=[])), r"wants `args` and `kwargs`, not \[\]"),
    "inputs by number": (edit(lambda h: h["inputs"].update(args={})), "has `args` as a list and `kwargs` as an object"),
    "inputs within inputs": (_first(**_nested(20)), "nested more than 16 times"),
    "an input by a row": (_first(value=[1]), "damaged"),
    "a list that is none": (_first(list={}), "damaged"),
    "a dict that is none": (_first(dict=[]), "damaged"),
    "an input of no kind": (_first(shape=[2]), "damaged"),
    "floats that rise": (edit(lambda h: h["inputs"]["args"][0].update(order="rising")), "damaged"),
    "a number that rises": (
        edit(lambda h: h["inputs"]["args"][0].update(order="rising", dtype="int64", shape=[])),
        "damaged",
    ),
    "an unknown order": (edit(lambda h: h["inputs"]["args"][0].update(order="falling", dtype="int64")), "damaged"),
    "huge input": (edit(lambda h: h["inputs"]["args"][0].update(shape=[2**20, 2**20])), "damaged"),
    "negative seed": (edit(lambda h: h["ledger"]["entries"][0].update(seed=-1)), "damaged"),
    "ledger newer": (edit(lambda h: h["ledger"].update(schema=7)), "install a newer"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_damaged_and_hostile_folders_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    change, message = HOSTILE[name]
    folder = copy_of(saved, tmp_path / "copy")
    change(folder)
    with pytest.raises(gg.LedgerError, match=message):
        gg.load(folder)


def test_what_is_too_large_is_not_read(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of(saved, tmp_path / "copy")
    monkeypatch.setattr(store, "_LARGEST_LEDGER", 100)
    with pytest.raises(gg.LedgerError, match=r"ledger.json has .* bytes, more than the 100 that are read"):
        gg.load(folder)


def test_what_cannot_be_read_is_named(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of(saved, tmp_path / "copy")

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(gg.LedgerError, match=r"cannot read .*ledger.json: Input/output error"):
        gg.load(folder)


class Mixed(nn.Module):
    """Takes values of all kinds beside a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x: Any, pair: Any, named: Any, given: Any = None) -> torch.Tensor:
        y: torch.Tensor = self.first(x) + pair[1] * self.first(pair[0])
        return y + named["y"] if given is None else y


def test_inputs_of_all_kinds_come_back(tmp_path: Path) -> None:
    x = torch.randn(2, 3)
    graph = gg.trace(Mixed(), (x, (x, 2), {"y": torch.randn(2, 4), "z": [True, "a", 0.5]}))
    gg.save(graph, tmp_path)
    assert gg.load(tmp_path, Mixed()).inputs == graph.inputs


def test_inputs_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(gg.LedgerError, match="an input of type complex cannot be saved"):
        inputs_to_data(InputSpec((1j,), {}))


def test_links_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = copy_of(saved, tmp_path / "copy")
    real = tmp_path / "elsewhere"
    weights(folder).rename(real)
    (folder / next(saved.glob("weights-*")).name).symlink_to(real)
    with pytest.raises(gg.LedgerError, match="not a plain file"):
        gg.load(folder)


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_every_flipped_bit_of_the_weights_is_seen(saved: Path, position: int, bit: int) -> None:
    path = weights(saved)
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    folder = copy_of(saved, saved.parent / "flipped")
    weights(folder).write_bytes(bytes(data))
    with pytest.raises(gg.LedgerError, match="damaged"):
        gg.load(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(gg.LedgerError, match="there is no folder"):
        gg.load(tmp_path / "nowhere")
