"""`export` and `bench`."""

from __future__ import annotations

from pathlib import Path

from graphgrow.records import BenchmarkRecord, ComparisonRecord, ExportRecord
from tests.cli.commands import MLP, SHAPE, call, json_of


def test_export_then_bench_and_compare(tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    shown = call("export", MLP, SHAPE, "-o", first).stdout
    assert "onnxruntime agrees with torch" in shown
    assert "freshly initialised" in shown
    assert ExportRecord.from_json(json_of("export", MLP, SHAPE, "-o", second)).path == "b.onnx"
    text = call("bench", first, "--repeats", 2, "--batch-sizes", "1,4").stdout
    assert text.startswith("a.onnx: ")
    assert "takes" not in text
    found = json_of("bench", first, second, "--repeats", 2)
    assert [BenchmarkRecord.from_json(one).path for one in found["benchmarks"]] == ["a.onnx", "b.onnx"]
    assert ComparisonRecord.from_json(found["comparison"]).batch_size == 1


def test_export_to_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in call("export", MLP, SHAPE, "-o", tmp_path, code=1).stderr


def test_bench_refuses_what_it_cannot_time(tmp_path: Path) -> None:
    assert "no such file" in call("bench", tmp_path / "none.onnx", code=1).stderr
    assert "whole numbers" in call("bench", tmp_path / "none.onnx", "--batch-sizes", "1,none", code=2).stderr
