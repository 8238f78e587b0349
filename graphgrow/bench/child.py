"""Starts the worker process that opens an untrusted file, with limits on its time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphgrow.errors import BenchmarkError

_WORKER = Path(__file__).with_name("worker.py")


def ask(name: str, request: Mapping[str, Any], *, time_limit_s: float, memory_limit_bytes: int | None) -> Any:
    """Run one task of the worker and return its result, plain JSON.

    A fresh interpreter runs the worker's file: a fork would inherit this process's memory, and `multiprocessing`
    would import the user's main module again.

    Args:
        name: of the ONNX file, for messages.
        request: the task and its arguments.
        time_limit_s: seconds after which the worker is killed.
        memory_limit_bytes: of its address space; None sets no limit.

    Raises:
        BenchmarkError: if the worker reports an error, dies, or exceeds a limit.
    """
    # -P: the worker's own folder must not come before the installed packages
    command = [sys.executable, "-P", str(_WORKER)]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0) as process:
            expired = threading.Event()

            def stop() -> None:
                expired.set()
                process.kill()

            timer = threading.Timer(time_limit_s, stop)
            timer.start()
            try:
                answer = _exchange(process, {**request, "memory_limit": memory_limit_bytes})
            finally:
                timer.cancel()
                process.kill()
        if expired.is_set():
            raise BenchmarkError(
                f"{name}: the benchmark did not end within {time_limit_s:g} s; raise time_limit_s=, or lower repeats="
            )
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - 300))
        last = " ".join(log.read().decode(errors="replace").split())
    try:
        reply = json.loads(answer)
    except ValueError as error:
        raise BenchmarkError(
            f"{name}: the process that ran it died (exit status {process.returncode}): {last}; the file may be "
            "damaged, or need more than memory_limit_bytes="
        ) from error
    if "error" in reply:
        raise BenchmarkError(f"{name}: {reply['error']}")
    return reply["result"]


def _exchange(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> bytes:
    """Send the request, keep the pipe open (the worker ends when it closes), and read the answer to its end."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return b""  # it died at once; its exit status says why
    return process.stdout.read()
