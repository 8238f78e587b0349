"""The child process that opens an untrusted ONNX file: a script of its own, started by `graphgrow.bench.child`.

It imports neither torch nor graphgrow, so that its memory is that of onnxruntime and the model. It reads one request
as a line of JSON from its input and writes one answer as a line of JSON to its output: {"result": ...} or
{"error": text}.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

_REMEDY = "pass what gg.export_onnx wrote, unchanged"
_BESIDE = "put it beside the ONNX file, as a plain file"


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """Refuse external data outside the file's folder; the size of the file and its external data, in bytes."""
    from onnx import ModelProto, TensorProto

    file = Path(request["path"])
    model = ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except Exception as error:
        raise ValueError(f"not an ONNX file ({error}); {_REMEDY}") from error
    if not model.HasField("graph") or not model.graph.node or not model.opset_import:
        raise ValueError(f"not an ONNX file (it holds no graph); {_REMEDY}")
    locations: set[str] = set()
    # any message may hold a tensor: attributes, subgraphs, functions, sparse tensors
    pending: list[Any] = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
            locations.update(entry.value for entry in message.external_data if entry.key == "location")
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending.extend([value] if hasattr(value, "ListFields") else value)
    return {"bytes": file.stat().st_size + sum(_external(file.parent, place) for place in sorted(locations))}


def _external(folder: Path, location: str) -> int:
    """The size of an external data file, which must be a plain file below the folder and reached by no link."""
    place = folder / location
    if Path(location).is_absolute() or ".." in Path(location).parts or "\\" in location:
        raise ValueError(f"its external data {location!r} lies outside its folder; {_BESIDE}")
    if any(part.is_symlink() for part in (place, *place.parents) if folder in part.parents):
        raise ValueError(f"its external data {location!r} is reached by a link; {_BESIDE}")
    if not place.is_file():
        raise ValueError(f"its external data {location!r} is missing; {_BESIDE}")
    return place.stat().st_size


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Time one file at each batch size; times in nanoseconds, peak memory in bytes beyond the start."""
    session = None
    _reset_peak()
    before = _peak_bytes()
    session = _session(request["path"], request["threads"])
    static = _static_batch(session)
    runs = []
    for size in request["batch_sizes"] if static is None else [static]:
        run = _runner(session, size, request)
        for _ in range(request["warm_up"]):
            run()
        runs.append({"batch_size": size, "times": [run() for _ in range(request["repeats"])]})
    after = _peak_bytes()
    peak = None if before is None or after is None else max(0, after - before)
    return {"runs": runs, "static_batch": static, "peak": peak, "provider": session.get_providers()[0], **_versions()}


def pair(request: dict[str, Any]) -> dict[str, Any]:
    """Time two files in turns, each pair in the other order than the one before; times in nanoseconds."""
    sessions = [_session(path, request["threads"]) for path in request["paths"]]
    static = {one for one in map(_static_batch, sessions) if one is not None}
    if static - {request["batch_size"]}:
        raise ValueError(f"a batch of {request['batch_size']} was asked for, but a file accepts {sorted(static)} only")
    runs = [_runner(session, request["batch_size"], request) for session in sessions]
    times: list[list[int]] = []
    for index in range(request["warm_up"] + request["repeats"]):
        first = index % 2
        one = {side: runs[side]() for side in (first, 1 - first)}
        if index >= request["warm_up"]:
            times.append([one[0], one[1]])
    return {"times": times, "provider": sessions[0].get_providers()[0], **_versions()}


def _session(path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _static_batch(session: Any) -> int | None:
    """The batch size that the file is fixed to; None if an input has a symbolic axis 0."""
    shapes = [entry.shape for entry in session.get_inputs()]
    if any(shape and not isinstance(shape[0], int) for shape in shapes):
        return None
    return next((int(shape[0]) for shape in shapes if shape), 1)


def _runner(session: Any, batch_size: int, request: dict[str, Any]) -> Callable[[], int]:
    """One timed inference, in nanoseconds, on inputs that are drawn once."""
    feeds = _feeds(session, batch_size, request["seed"], request["inputs"])

    def run() -> int:
        start = time.perf_counter_ns()
        session.run(None, feeds)
        return time.perf_counter_ns() - start

    return run


def _feeds(session: Any, batch_size: int, seed: int, archive: str | None) -> dict[str, Any]:
    """Normal floats, zeros for the rest, and the given arrays, whose rows are repeated to the batch size."""
    import numpy as np

    given: dict[str, Any] = {}
    if archive is not None:
        with np.load(archive, allow_pickle=False) as arrays:
            given = dict(arrays)
    entries = session.get_inputs()
    unknown = sorted(set(given) - {entry.name for entry in entries})
    if unknown:
        raise ValueError(
            f"inputs= names {unknown}, but its inputs are {[entry.name for entry in entries]}; rename them"
        )
    batch_names = {entry.shape[0] for entry in entries if entry.shape and isinstance(entry.shape[0], str)}
    generator = np.random.default_rng(seed)
    feeds = {}
    for entry in entries:
        if entry.type not in _DTYPES:
            raise ValueError(f"its input {entry.name!r} is a {entry.type}, wanted a tensor of numbers")
        dtype = np.dtype(_DTYPES[entry.type])
        if entry.name in given:
            array = given[entry.name]
            dynamic = entry.shape and not isinstance(entry.shape[0], int) and array.ndim and len(array)
            feeds[entry.name] = (array[np.arange(batch_size) % len(array)] if dynamic else array).astype(dtype)
            continue
        shape = []
        for axis, size in enumerate(entry.shape):
            if not isinstance(size, int) and axis > 0 and size not in batch_names:
                raise ValueError(
                    f"axis {axis} of its input {entry.name!r} has the symbolic size {size!r}; give an array for it in "
                    "inputs="
                )
            shape.append(size if isinstance(size, int) else batch_size)
        normal = dtype.kind == "f"
        feeds[entry.name] = generator.standard_normal(shape).astype(dtype) if normal else np.zeros(shape, dtype)
    return feeds


def _versions() -> dict[str, Any]:
    import numpy as np
    import onnxruntime

    python = ".".join(map(str, sys.version_info[:3]))
    return {"versions": {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__, "python": python}}


def _reset_peak() -> None:
    """Let Linux count the peak of resident memory from here on; elsewhere it counts from the start."""
    import numpy as np  # noqa: F401 - loaded now, so that it does not count as the model's memory
    import onnxruntime  # noqa: F401 - as above

    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int | None:
    """The peak of resident memory. On Linux not ru_maxrss, which begins at the peak of the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _limit_memory(limit: int | None) -> None:
    """Bound the address space, and write no core dump."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limit is not None:
        with contextlib.suppress(ValueError, OSError):  # a hard limit of the system below ours
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _leave_with_parent(stream: BinaryIO) -> None:
    """End this process as soon as the parent's end of the pipe is closed, by whatever cause."""

    def wait() -> None:
        stream.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _own_output() -> Iterator[BinaryIO]:
    """Standard output for the answer alone: what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)
        yield answer


def main() -> None:
    """Answer the one request."""
    stream = sys.stdin.buffer
    request = json.loads(stream.readline())
    _leave_with_parent(stream)
    task = {"inspect": inspect, "measure": measure, "pair": pair}[request["task"]]
    with _own_output() as answer:
        try:
            _limit_memory(request["memory_limit"])
            reply: dict[str, Any] = {"result": task(request)}
        except MemoryError:
            reply = {
                "error": "it needs more memory than it may have; raise memory_limit_bytes=, or lower the batch size"
            }
        except ValueError as error:
            reply = {"error": str(error)[:500]}
        except Exception as error:  # noqa: BLE001 - the parent raises it again
            words = " ".join(str(error).split())[:400] or type(error).__name__
            reply = {"error": f"{words}; pass an ONNX file that onnxruntime's CPU provider runs"}
        answer.write(json.dumps(reply).encode())
        answer.flush()
        os._exit(0)  # the parent reads up to here: the end of this process is the end of its answer


if __name__ == "__main__":
    main()
