"""Calls, ledgers, files and options that are refused: what was seen and what to do, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.bad_input.model import IMAGE, ROWS, fingerprint, net, same


def _entry(mutation: str, seed: object = 0) -> str:
    return json.dumps({"schema": 1, "entries": [{"mutation": mutation, "seed": seed}]})


def _saved(model: nn.Module, folder: Path, text: str | None = None, **header: object) -> Path:
    """A saved graph whose ledger file is replaced, or has other keys."""
    gg.save(gg.apply(gg.trace(model, IMAGE), "widen(0, extra=1)"), folder / "saved")
    path = folder / "saved" / "ledger.json"
    path.write_text(text or json.dumps(json.loads(path.read_text()) | header))
    return folder / "saved"


def _in_the_way(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def _smaller() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))


# what is called with the model, its graph and an empty folder -> what the error says
CALLS: dict[str, tuple[Callable[[nn.Module, gg.Graph, Path], object], type[gg.GraphGrowError], str]] = {
    "verified in no mode": (lambda m, g, f: gg.verify(g, g, modes=()), gg.NotPreserved, "gg.verify knows eval, train"),
    "verified in an unknown mode": (
        lambda m, g, f: gg.verify(g, g, modes=("speed",)), gg.NotPreserved, r"no mode \['speed'\]",
    ),
    "two modules verified without inputs": (
        lambda m, g, f: gg.verify(m, net()), gg.NotPreserved, r"wants inputs: gg.verify\(a, b, inputs=x\)",
    ),
    "captured in an unknown way": (
        lambda m, g, f: gg.trace(m, IMAGE, way="magic"), gg.CaptureError, "there are auto, fx, dynamo",
    ),
    "a leaf of no such name": (
        lambda m, g, f: gg.trace(m, IMAGE, leaves=["nothing"]), gg.CaptureError, "no submodule 'nothing' in Sequential",
    ),
    "a group of no such name": (lambda m, g, f: g.group("nothing"), gg.MutationError, "`nothing`; see graph.groups"),
    "mutations of an unknown pass": (lambda m, g, f: g.mutations("grow"), gg.MutationError, "there are .*widen"),
    "the cost of an unknown group": (lambda m, g, f: g.cost("widen(9, extra=1)"), gg.MutationError, "group `9`"),
    # saving and loading
    "saved where a file lies": (
        lambda m, g, f: gg.save(g, _in_the_way(f)), gg.LedgerError, "File exists; choose another place",
    ),
    "loaded from nowhere": (lambda m, g, f: gg.load(f / "none"), gg.LedgerError, "there is no folder .*none"),
    "an empty folder": (lambda m, g, f: gg.load(f), gg.LedgerError, "ledger.json is missing"),
    "a ledger file that is no JSON": (
        lambda m, g, f: gg.load(_saved(m, f, "{"), m), gg.LedgerError, "ledger.json is damaged: Expecting property",
    ),
    "a foreign file": (lambda m, g, f: gg.load(_saved(m, f, "{}"), m), gg.LedgerError, "not written by graphgrow"),
    "a newer folder": (lambda m, g, f: gg.load(_saved(m, f, schema=99), m), gg.LedgerError, "install a newer one"),
    "an unknown key": (lambda m, g, f: gg.load(_saved(m, f, more=1), m), gg.LedgerError, r"missing keys \['more'\]"),
    "a header that was edited": (
        lambda m, g, f: gg.load(_saved(m, f, training=not m.training), m), gg.LedgerError, "another checksum",
    ),
    "loaded without its base": (
        lambda m, g, f: gg.load(_saved(m, f)), gg.LedgerError, r"pass it: gg.load\(folder, model=Sequential",
    ),
    "loaded on another base": (
        lambda m, g, f: gg.load(_saved(m, f), nn.Linear(3, 2)), gg.LedgerError, "does not fit its base model",
    ),
    # ledgers
    "a ledger that is no JSON": (lambda m, g, f: gg.Ledger.from_json("["), gg.LedgerError, "this is not a ledger"),
    "a ledger without entries": (lambda m, g, f: gg.Ledger.from_json("{}"), gg.LedgerError, "`schema` and `entries`"),
    "a ledger of another schema": (
        lambda m, g, f: gg.Ledger.from_json('{"schema": "1", "entries": []}'), gg.LedgerError, "version is '1'",
    ),
    "a newer ledger": (
        lambda m, g, f: gg.Ledger.from_json('{"schema": 99, "entries": []}'), gg.LedgerError, "has schema 99",
    ),
    "an entry of another form": (
        lambda m, g, f: gg.Ledger.from_json('{"schema": 1, "entries": [1]}'), gg.LedgerError, "entry 1 .* not 1",
    ),
    "an entry with a negative seed": (
        lambda m, g, f: gg.Ledger.from_json(_entry("split(0)", -1)), gg.LedgerError, "entry 1 of the ledger is damaged",
    ),
    "an entry of an unknown pass": (
        lambda m, g, f: gg.replay(nn.Linear(3, 2), ROWS, gg.Ledger.from_json(_entry("import(os)"))),
        gg.LedgerError, "there is no pass `import`",
    ),
    "a ledger of another model": (
        lambda m, g, f: gg.replay(nn.Linear(3, 2), ROWS, gg.Ledger.from_json(_entry("split(0)"))),
        gg.MutationError, "no channel group `0`",
    ),
    # files that others read
    "exported onto a folder": (lambda m, g, f: gg.export_onnx(g, f), gg.ExportError, "wanted a file name; pass for"),
    "exported for no batch size": (
        lambda m, g, f: gg.export_onnx(g, f / "m.onnx", batch_sizes=()), gg.ExportError, "wanted positive integers",
    ),
    "exported for a batch of nothing": (
        lambda m, g, f: gg.export_onnx(g, f / "m.onnx", batch_sizes=(0,)), gg.ExportError, r"batch_sizes is \(0,\)",
    ),
    "exported for a static batch of nothing": (
        lambda m, g, f: gg.export_onnx(g, f / "m.onnx", static_batch=0), gg.ExportError, "static_batch=0, wanted",
    ),
    "source where a file lies": (
        lambda m, g, f: gg.export_source(g, _in_the_way(f)), gg.ExportError, "is a file, wanted a folder",
    ),
    "a checkpoint of no class with a config": (
        lambda m, g, f: gg.save_pretrained(g, m, f), gg.ExportError, "Sequential has no `config`",
    ),
    "a benchmark of no file": (
        lambda m, g, f: gg.benchmark(f / "none.onnx"), gg.BenchmarkError, "no such file; export one first",
    ),
    # growing as a whole
    "scaled down": (lambda m, g, f: gg.scale(g, width=0.5), gg.MutationError, "width=0.5: a factor of at least 1"),
    "scaled by no number": (lambda m, g, f: gg.scale(g, width=float("nan")), gg.MutationError, "width=nan"),
    "scaled to multiples of zero": (
        lambda m, g, f: gg.scale(g, width=2, multiple=0), gg.MutationError, "multiple=0: a whole number",
    ),
    "grown to a number": (lambda m, g, f: gg.grow_to(g, 3), gg.Unsupported, "target is int"),  # type: ignore[arg-type]
    "grown to what has no weights": (lambda m, g, f: gg.grow_to(g, nn.ReLU()), gg.Unsupported, "has no parameters"),
    "grown to a smaller model": (lambda m, g, f: gg.grow_to(g, _smaller()), gg.Unsupported, "nothing can shrink"),
    "grown to another dtype": (
        lambda m, g, f: gg.grow_to(g, net().double()), gg.Unsupported, "convert one of them first",
    ),
    "a policy of no such name": (lambda m, g, f: gg.Grower(g, policy="luck"), gg.TrainingError, "no policy `luck`"),
    "an unknown role of state": (
        lambda m, g, f: gg.register_optimizer(torch.optim.Rprop, prev="speed"),
        gg.OptimizerError, "there are moment, square, magnitude, direction",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CALLS))
def test_what_cannot_be_done_changes_nothing(name: str, tmp_path: Path) -> None:
    call, error, message = CALLS[name]
    model = net()
    graph = gg.trace(model, IMAGE)
    optimizer = torch.optim.SGD(graph.module.parameters())
    before = fingerprint(model, optimizer)
    with pytest.raises(error, match=message):
        call(model, graph, tmp_path)
    assert same(fingerprint(model, optimizer), before)


def test_a_model_on_meta_grows_in_structure_and_is_not_verified(tmp_path: Path) -> None:
    graph = gg.trace(net().to("meta"), IMAGE.to("meta"))
    grown = gg.apply(graph, ["widen(0, extra=2)", "split(0)"])
    assert grown.module.get_parameter("4.weight").shape == (5, 12 * 36)
    with pytest.raises(gg.NotPreserved, match="meta device"):
        gg.verify(graph, grown)
    with pytest.raises(gg.LedgerError, match="meta device"):
        gg.save(grown, tmp_path)


def test_every_error_is_a_graphgrow_error() -> None:
    errors = [
        value for name, value in vars(gg).items() if name.endswith("Error") or name in ("Declined", "Unsupported")
    ]
    assert len(errors) >= 10
    assert all(issubclass(error, gg.GraphGrowError) for error in errors)
