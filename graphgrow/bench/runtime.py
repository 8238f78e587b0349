"""Latency, throughput and memory of ONNX files under onnxruntime, with their spread."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphgrow.bench.child import ask
from graphgrow.errors import BenchmarkError
from graphgrow.records import BenchmarkRecord, ComparisonRecord, LatencyRecord

Arrays = Mapping[str, npt.NDArray[Any]]

TIME_LIMIT_S = 600.0
RESAMPLES = 2000
CONFIDENCE = 0.95


def benchmark(
    path: str | os.PathLike[str],
    batch_sizes: Sequence[int] = (1, 8),
    *,
    threads: int = 1,
    warm_up: int = 10,
    repeats: int = 50,
    seed: int = 0,
    inputs: Arrays | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_bytes: int | None = None,
) -> BenchmarkRecord:
    """Time an ONNX file with onnxruntime on the CPU, in a child process with limits.

        print(gg.benchmark("grown.onnx", batch_sizes=(1, 8)))

    Floating-point inputs are normal, all others zero, unless given. A file with a static batch is timed at that one
    only, and the record says so.

    Args:
        path: of the ONNX file; it is not trusted.
        batch_sizes: for axis 0 of every input where its size is symbolic.
        threads: intra-operator threads.
        warm_up: runs before the timed ones, for each batch size.
        repeats: timed runs for each batch size.
        seed: of the random inputs.
        inputs: arrays by input name, with their batch axis, whose rows are repeated up to each batch size. Needed for
            inputs with other symbolic axes than the batch, and where zeros are not valid.
        time_limit_s: seconds after which the child process is killed.
        memory_limit_bytes: of the child's address space; None is the machine's physical memory.

    Returns:
        The times in milliseconds and samples a second, for each batch size, and the child's peak memory in bytes.

    Raises:
        BenchmarkError: if the file is missing, is not ONNX, has external data outside its folder, is refused by
            onnxruntime, or exceeds a limit.
    """
    sizes = [_at_least(1, "batch_sizes", size) for size in batch_sizes]
    if not sizes:
        raise BenchmarkError("batch_sizes is empty, wanted positive integers; pass for example (1, 8)")
    file = _existing(path)
    limits: dict[str, Any] = {"time_limit_s": time_limit_s, "memory_limit_bytes": memory_limit_bytes or _memory()}
    options = _options(threads, warm_up, repeats, seed)
    total = ask(file.name, {"task": "inspect", "path": str(file)}, **limits)["bytes"]
    with _archive(inputs) as archive:
        request = {"task": "measure", "path": str(file), "batch_sizes": sizes, "inputs": archive, **options}
        found = ask(file.name, request, **limits)
    return BenchmarkRecord(
        path=file.name,
        bytes=total,
        threads=threads,
        provider=found["provider"],
        versions=found["versions"],
        latencies=tuple(_latency(run["batch_size"], run["times"], warm_up) for run in found["runs"]),
        peak_memory_bytes=found["peak"],
        static_batch=found["static_batch"],
    )


def compare(
    path_a: str | os.PathLike[str],
    path_b: str | os.PathLike[str],
    batch_size: int = 1,
    *,
    threads: int = 1,
    warm_up: int = 10,
    repeats: int = 50,
    seed: int = 0,
    inputs: Arrays | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_bytes: int | None = None,
) -> ComparisonRecord:
    """Time two ONNX files in turns in one child process: median time of the first over that of the second.

        print(gg.compare("grown.onnx", "before.onnx"))  # above 1 the grown one is slower

    The pairs of runs are resampled together, so that what slows both down at once does not widen the interval.

    Args:
        path_a: of the first file.
        path_b: of the second.
        batch_size: for axis 0 of every input where its size is symbolic; must be that of files with a static batch.
        threads: intra-operator threads.
        warm_up: pairs before the timed ones.
        repeats: timed pairs.
        seed: of the random inputs and of the bootstrap.
        inputs: as in `benchmark`, for both files.
        time_limit_s: as in `benchmark`.
        memory_limit_bytes: as in `benchmark`.

    Returns:
        The ratio, without a unit, and its interval of 95 %.

    Raises:
        BenchmarkError: as in `benchmark`, for either file.
    """
    size = _at_least(1, "batch_size", batch_size)
    files = [_existing(path_a), _existing(path_b)]
    limits: dict[str, Any] = {"time_limit_s": time_limit_s, "memory_limit_bytes": memory_limit_bytes or _memory()}
    options = _options(threads, warm_up, repeats, seed)
    for file in files:
        ask(file.name, {"task": "inspect", "path": str(file)}, **limits)
    with _archive(inputs) as archive:
        paths = [str(file) for file in files]
        request = {"task": "pair", "paths": paths, "batch_size": size, "inputs": archive, **options}
        found = ask(f"{files[0].name} against {files[1].name}", request, **limits)
    times = np.asarray(found["times"], dtype=np.float64) / 1e6
    low, high = ratio_interval(times, seed)
    median_a, median_b = (float(value) for value in np.median(times, axis=0))
    return ComparisonRecord(
        path_a=files[0].name,
        path_b=files[1].name,
        batch_size=size,
        pairs=len(times),
        ratio=median_a / median_b,
        low=low,
        high=high,
        confidence=CONFIDENCE,
        median_a_ms=median_a,
        median_b_ms=median_b,
        threads=threads,
        provider=found["provider"],
        versions=found["versions"],
    )


def ratio_interval(times: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """The percentile bootstrap interval of the ratio of medians.

    Args:
        times: paired times, shape (pairs, 2).
        seed: of the resampling.
    """
    rows = np.random.default_rng(seed).integers(len(times), size=(RESAMPLES, len(times)))
    medians = np.median(times[rows], axis=1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(medians[:, 0] / medians[:, 1], [tail, 100 - tail])
    return float(low), float(high)


def _latency(batch_size: int, times_ns: Sequence[int], warm_up: int) -> LatencyRecord:
    """The statistics of one batch size; throughput follows from the median."""
    times = np.asarray(times_ns, dtype=np.float64) / 1e6
    first, median, third, high = (float(value) for value in np.percentile(times, [25, 50, 75, 95]))
    return LatencyRecord(
        batch_size=batch_size,
        repeats=len(times),
        warm_up=warm_up,
        median_ms=median,
        iqr_ms=third - first,
        p95_ms=high,
        min_ms=float(times.min()),
        throughput_per_s=1e3 * batch_size / median,
    )


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path).absolute()
    if not file.is_file():
        raise BenchmarkError(f"{path}: no such file; export one first, with `graphgrow export` or gg.export_onnx")
    return file


def _options(threads: int, warm_up: int, repeats: int, seed: int) -> dict[str, int]:
    return {
        "threads": _at_least(1, "threads", threads),
        "warm_up": _at_least(0, "warm_up", warm_up),
        "repeats": _at_least(1, "repeats", repeats),
        "seed": _at_least(0, "seed", seed),
    }


def _at_least(least: int, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BenchmarkError(f"{name} holds {value!r}, wanted integers from {least} on; leave it out for the default")
    return value


def _memory() -> int | None:
    """The machine's physical memory in bytes, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


@contextlib.contextmanager
def _archive(inputs: Arrays | None) -> Iterator[str | None]:
    """The given arrays in a temporary file that the child can read without pickle."""
    if not inputs:
        yield None
        return
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    bad = sorted(name for name, array in arrays.items() if array.dtype.kind not in "fiub")
    if bad:
        raise BenchmarkError(f"inputs= {bad} are no arrays of numbers; pass numpy arrays")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inputs.npz"
        np.savez(file, allow_pickle=False, **arrays)
        yield str(file)
