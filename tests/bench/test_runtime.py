"""Benchmarks of files that onnx's own helpers write; what is asserted is counts, statistics and refusals, no speed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphgrow.bench import benchmark, child, compare, runtime
from graphgrow.errors import BenchmarkError
from graphgrow.records import BenchmarkRecord

QUICK: dict[str, Any] = {"warm_up": 1, "repeats": 5}


def save(path: Path, inputs: dict[str, tuple[int, list[Any]]], nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """A file whose last node writes "y"."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", values, [result], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
    return model


def linear(path: Path, batch: int | str = "batch", *, middle: int | str = 3) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return save(path, {"x": (TensorProto.FLOAT, [batch, middle, 4])}, nodes)


def lookup(path: Path) -> None:
    """y = w[ids], which onnxruntime refuses for ids outside of [-4, 3]."""
    save(path, {"ids": (TensorProto.INT64, ["batch", "n"])}, [helper.make_node("Gather", ["w", "ids"], ["y"])])


def test_every_batch_size_is_timed(tmp_path: Path) -> None:
    linear(tmp_path / "m.onnx")
    record = benchmark(tmp_path / "m.onnx", (1, 4), warm_up=2, repeats=7)
    assert [(one.batch_size, one.repeats, one.warm_up) for one in record.latencies] == [(1, 7, 2), (4, 7, 2)]
    for one in record.latencies:
        assert 0 < one.min_ms <= one.median_ms <= one.p95_ms
        assert one.iqr_ms >= 0
        assert one.throughput_per_s == pytest.approx(1e3 * one.batch_size / one.median_ms)
    assert (record.path, record.bytes) == ("m.onnx", (tmp_path / "m.onnx").stat().st_size)
    assert (record.provider, record.threads, record.static_batch) == ("CPUExecutionProvider", 1, None)
    assert set(record.versions) == {"onnxruntime", "numpy", "python"}
    assert BenchmarkRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is reset and read by /proc")
def test_peak_memory_is_the_models_and_not_this_processes(tmp_path: Path) -> None:
    ballast = np.ones(64 << 20, dtype=np.uint8)  # the child must not inherit the peak of its parent
    linear(tmp_path / "m.onnx")
    small = benchmark(tmp_path / "m.onnx", (1,), **QUICK).peak_memory_bytes
    large = benchmark(tmp_path / "m.onnx", (1 << 20,), warm_up=0, repeats=1).peak_memory_bytes
    assert small is not None
    assert large is not None
    assert 0 < small < ballast.nbytes
    assert large - small > 2 * 40 * (1 << 20)  # input and output hold 12 floats for each of 2^20 samples


def test_a_static_batch_is_timed_alone(tmp_path: Path) -> None:
    linear(tmp_path / "m.onnx", 2)
    record = benchmark(tmp_path / "m.onnx", (1, 8), **QUICK)
    assert record.static_batch == 2
    assert [one.batch_size for one in record.latencies] == [2]
    assert "static batch 2" in str(record)


def test_given_arrays_fill_symbolic_axes_and_repeat_their_rows(tmp_path: Path) -> None:
    lookup(tmp_path / "m.onnx")
    with pytest.raises(BenchmarkError, match="symbolic size 'n'"):
        benchmark(tmp_path / "m.onnx", **QUICK)
    ids = np.array([[0, 1, 2], [3, 3, 3]])
    record = benchmark(tmp_path / "m.onnx", (1, 5), inputs={"ids": ids}, **QUICK)
    assert [one.batch_size for one in record.latencies] == [1, 5]
    with pytest.raises(BenchmarkError, match=r"m\.onnx: .*out of data bounds"):
        benchmark(tmp_path / "m.onnx", (2,), inputs={"ids": ids + 1}, **QUICK)
    with pytest.raises(BenchmarkError, match="tokens"):
        benchmark(tmp_path / "m.onnx", inputs={"tokens": ids}, **QUICK)
    with pytest.raises(BenchmarkError, match="numbers"):
        benchmark(tmp_path / "m.onnx", inputs={"ids": np.array(["a"])}, **QUICK)


def test_external_data_counts_and_stays_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    file = folder / "m.onnx"
    model = linear(file)
    onnx.save(model, str(file), save_as_external_data=True, location="w.data", size_threshold=0)
    assert benchmark(file, (1,), **QUICK).bytes == sum(entry.stat().st_size for entry in folder.iterdir())

    (folder / "w.data").rename(tmp_path / "w.data")
    with pytest.raises(BenchmarkError, match="missing"):
        benchmark(file, **QUICK)
    (folder / "w.data").symlink_to(tmp_path / "w.data")
    with pytest.raises(BenchmarkError, match="link"):
        benchmark(file, **QUICK)
    for location in ("../w.data", str(tmp_path / "w.data")):
        proto = onnx.load(str(file), load_external_data=False)
        entry = next(one for one in proto.graph.initializer[0].external_data if one.key == "location")
        entry.value = location
        file.write_bytes(proto.SerializeToString())
        with pytest.raises(BenchmarkError, match="outside its folder"):
            benchmark(file, **QUICK)


def test_external_data_in_a_subgraph_is_seen(tmp_path: Path) -> None:
    hidden = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["z"], value=hidden)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    save(tmp_path / "m.onnx", {"c": (TensorProto.BOOL, [])}, [node])
    with pytest.raises(BenchmarkError, match="outside its folder"):
        benchmark(tmp_path / "m.onnx", **QUICK)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x0a"])
def test_what_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BenchmarkError, match=r"m\.onnx: not an ONNX file"):
        benchmark(tmp_path / "m.onnx", **QUICK)


def test_missing_files_and_unknown_operators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no such file"):
        benchmark(tmp_path / "m.onnx")
    node = helper.make_node("Unheard", ["x"], ["y"], domain="elsewhere")
    save(tmp_path / "m.onnx", {"x": (TensorProto.FLOAT, [1])}, [node])
    with pytest.raises(BenchmarkError, match="Unheard"):
        benchmark(tmp_path / "m.onnx", **QUICK)


@pytest.mark.parametrize(
    "options",
    [{"batch_sizes": ()}, {"batch_sizes": (0,)}, {"threads": 0}, {"repeats": 0}, {"warm_up": -1}, {"repeats": True}],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    linear(tmp_path / "m.onnx")
    with pytest.raises(BenchmarkError, match=next(iter(options))):
        benchmark(tmp_path / "m.onnx", **options)


def test_time_and_memory_are_limited(tmp_path: Path) -> None:
    linear(tmp_path / "m.onnx")
    with pytest.raises(BenchmarkError, match="time_limit_s"):
        benchmark(tmp_path / "m.onnx", repeats=10**9, time_limit_s=1.0)
    if os.name == "posix":
        linear(tmp_path / "big.onnx", 2**30, middle=2**10)
        with pytest.raises(BenchmarkError, match="memory"):
            benchmark(tmp_path / "big.onnx", **QUICK)


def test_inputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT)
    save(tmp_path / "m.onnx", {"a": (TensorProto.STRING, [1])}, [node])
    with pytest.raises(BenchmarkError, match=r"its input 'a' is a tensor\(string\), wanted a tensor of numbers"):
        benchmark(tmp_path / "m.onnx", **QUICK)


def test_a_worker_that_dies_without_a_word_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear(tmp_path / "m.onnx")
    (tmp_path / "worker.py").write_text("import os, sys\nprint('no luck', file=sys.stderr, flush=True)\nos._exit(7)\n")
    monkeypatch.setattr(child, "_WORKER", tmp_path / "worker.py")
    with pytest.raises(BenchmarkError, match=r"m\.onnx: the process that ran it died \(exit status -?\d\): no luck"):
        benchmark(tmp_path / "m.onnx", **QUICK)


def test_compare_times_pairs(tmp_path: Path) -> None:
    linear(tmp_path / "a.onnx")
    linear(tmp_path / "b.onnx")
    record = compare(tmp_path / "a.onnx", tmp_path / "b.onnx", 2, warm_up=1, repeats=6)
    assert (record.path_a, record.path_b, record.batch_size, record.pairs) == ("a.onnx", "b.onnx", 2, 6)
    assert record.ratio == pytest.approx(record.median_a_ms / record.median_b_ms)
    assert record.low <= record.ratio <= record.high
    assert record.confidence == 0.95


def test_compare_refuses_a_static_batch_of_another_size(tmp_path: Path) -> None:
    linear(tmp_path / "a.onnx")
    linear(tmp_path / "b.onnx", 2)
    with pytest.raises(BenchmarkError, match=r"a\.onnx against b\.onnx: .*2"):
        compare(tmp_path / "a.onnx", tmp_path / "b.onnx", 1, **QUICK)


def test_the_interval_of_a_known_ratio() -> None:
    generator = np.random.default_rng(1)
    slow = generator.normal(1.0, 0.2, size=200)  # what slows both runs of a pair down
    noise = generator.normal(1.0, 0.01, size=(200, 2))
    times = np.array([3.0, 2.0]) * np.exp(slow)[:, None] * noise
    low, high = runtime.ratio_interval(times, seed=0)
    assert low <= 1.5 <= high
    assert high - low < 0.05  # unpaired resampling would give about 0.15
    assert runtime.ratio_interval(np.array([[2.0, 1.0]] * 5), seed=0) == (2.0, 2.0)
