"""Runs one model in a process of its own, within limits, and makes a row of whatever it found."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.sweep.child import Request, answer
from tools.sweep.journal import read_events
from tools.sweep.options import Limits, Options
from tools.sweep.outcome import one_line
from tools.sweep.row import Row, add_events
from tools.sweep.versions import commit_of_sources

INTERRUPTED = "interrupted"
# The server holds nothing but imports, so that a model inherits nothing of the one before.
_METHOD = next(method for method in ("forkserver", "spawn") if method in multiprocessing.get_all_start_methods())
_PROCESSES: Any = multiprocessing.get_context(_METHOD)
if _METHOD == "forkserver":
    _PROCESSES.set_forkserver_preload(["tools.sweep.nursery"])


def run_model(
    name: str,
    options: Options,
    limits: Limits,
    versions: dict[str, str],
    work: Callable[[Request], None] = answer,
) -> Row:
    """The row of a model. Whatever ends the child early, what it had found by then is in the row.

    Args:
        name: of the model.
        options: what is done with it.
        limits: of time, held here, and of memory, held by the child.
        versions: noted in the row.
        work: what the child does; of a module that it can import.
    """
    start, row = time.perf_counter(), Row(name, options.to_json(), versions, commit=commit_of_sources())
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        request = Request(name, options, limits.memory_gib, Path(folder))
        ended = _run(work, request, limits.timeout_s)
        found = read_events(request.events)
        printed = request.log.read_text(encoding="utf-8", errors="replace") if request.log.exists() else ""
        last = one_line(printed.strip().rpartition("\n")[2])
    add_events(row, found)
    if not (found and found[-1]["event"] == "done"):
        doing = next((event["label"] for event in reversed(found) if event["event"] == "begin"), "the start")
        row.complete, row.seconds = False, time.perf_counter() - start
        row.stopped = f"{ended} in `{doing}`" + (f": {last}" if last and ended.startswith("died") else "")
    return row


def _run(work: Callable[[Request], None], request: Request, timeout_s: float) -> str:
    """Run the child to its end, or end it; returns what ended it, in words."""
    process = _PROCESSES.Process(target=work, args=(request,), daemon=True)
    process.start()
    try:
        process.join(timeout_s)
        status = process.exitcode
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        process.kill()
        process.join()
    if status is None:
        return f"stopped at the time limit of {timeout_s:g} s"
    return f"died ({signal.Signals(-status).name if status < 0 else f'exit status {status}'})"
