"""Runs one model in a process of its own, within limits, and makes a row of whatever it found."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.sweep.journal import read_events
from tools.sweep.options import Limits, Options
from tools.sweep.outcome import one_line
from tools.sweep.row import Row, add_events

ROOT = Path(__file__).resolve().parents[2]
CHILD = ("-P", "-m", "tools.sweep.child")  # -P: the current folder must not come before the installed packages
INTERRUPTED = "interrupted"


def run_model(
    name: str, options: Options, limits: Limits, versions: dict[str, str], command: Sequence[str] = CHILD
) -> Row:
    """The row of a model. Whatever ends the child early, what it had found by then is in the row.

    A fresh interpreter is started: a fork would inherit this process's memory.

    Args:
        name: of the model.
        options: what is done with it.
        limits: of time, held here, and of memory, held by the child.
        versions: noted in the row.
        command: arguments of the Python interpreter that start the child.
    """
    start, row = time.perf_counter(), Row(name, options.to_json(), versions)
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        events, log = Path(folder) / "events.jsonl", Path(folder) / "log"
        request = {
            "model": name,
            "options": options.to_json(),
            "memory_gib": limits.memory_gib,
            "events": str(events),
        }
        ended = _run([sys.executable, *command], json.dumps(request), limits.timeout_s, log)
        found = read_events(events)
        last = one_line(log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2])
    add_events(row, found)
    if not (found and found[-1]["event"] == "done"):
        doing = next((event["label"] for event in reversed(found) if event["event"] == "begin"), "the start")
        row.complete, row.seconds = False, time.perf_counter() - start
        row.stopped = f"{ended} in `{doing}`" + (f": {last}" if last and ended.startswith("died") else "")
    return row


def _run(command: Sequence[str], request: str, timeout_s: float, log: Path) -> str:
    """Run the child to its end, or end it; returns what ended it, in words."""
    # What a killed child leaves of its temporary files lies in the folder that is removed here.
    environment = {**os.environ, "PYTHONPATH": _search_path(), "TMPDIR": str(log.parent)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT, env=environment, text=True
        )
        pipe = process.stdin
        assert pipe is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it died at once; its status says why
                pipe.write(request + "\n")
                pipe.flush()
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"stopped at the time limit of {timeout_s:g} s"
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # open until here: the child ends with it
    return f"died ({signal.Signals(-status).name if status < 0 else f'exit status {status}'})"


def _search_path() -> str:
    """The path of modules with this repository first, so that the child finds `tools`."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
