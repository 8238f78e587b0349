"""torch builds its table of operators once, the files are the same, and torch is as it was."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter import _registration

import graphgrow as gg
from graphgrow.export import program
from graphgrow.export.operator_table import operator_table_kept


def test_the_table_of_an_opset_is_built_once() -> None:
    original = _registration.ONNXRegistry.__dict__["from_torchlib"]
    with operator_table_kept():
        first = _registration.ONNXRegistry.from_torchlib(opset_version=18)
    with operator_table_kept():
        assert _registration.ONNXRegistry().from_torchlib(opset_version=18) is first
        assert _registration.ONNXRegistry.from_torchlib(opset_version=20) is not first
    with pytest.raises(KeyError), operator_table_kept():
        raise KeyError
    assert _registration.ONNXRegistry.__dict__["from_torchlib"] is original
    assert {**first.functions}.keys() == _registration.ONNXRegistry.from_torchlib(opset_version=18).functions.keys()


def test_where_torch_has_none_each_export_builds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphgrow.export.operator_table._MODULE", "torch.onnx._internal.no_such_module")
    with operator_table_kept():
        assert _registration.ONNXRegistry.from_torchlib() is not _registration.ONNXRegistry.from_torchlib()


def test_files_are_those_of_a_table_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    graphs = [
        gg.trace(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.LayerNorm(4)), torch.randn(2, 3)),
        gg.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), torch.randn(2, 3, 5, 5)),
    ]
    for number, graph in enumerate([*graphs, *graphs]):
        gg.export_onnx(graph, tmp_path / f"{number}.onnx")
    monkeypatch.setattr(program, "operator_table_kept", torch.no_grad)
    for number, graph in enumerate(graphs):
        gg.export_onnx(graph, tmp_path / "own.onnx")
        own = onnx.load(tmp_path / "own.onnx")
        assert [onnx.load(tmp_path / f"{n}.onnx") == own for n in (number, number + 2)] == [True, True]
