"""A worker of the process pool: `python -m graphgrow.search.worker module:function`, started by `pool.py`.

It reads requests as lines of JSON from its input and answers each with a line of JSON: {"at": word} while it works,
then {"result": ...} or {"error": kind, "text": ...}. What else is printed goes to standard error.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

GIB = 2**30


def answer(target: Any, request: dict[str, Any], say: Any) -> dict[str, Any]:
    """Call the target; what it raises becomes an answer, so that one candidate never ends the run."""
    try:
        return {"result": target(request["job"], lambda at: say({"at": at}))}
    except MemoryError as error:
        return {"error": "memory", "text": f"out of memory: {error}".rstrip(": ")}
    except Exception as error:  # noqa: BLE001 - it goes into the candidate's record
        words = " ".join(str(error).split())[:500]
        # torch has no class of its own for it on the CPU
        kind = "memory" if "allocate memory" in words or "out of memory" in words else "failed"
        return {"error": kind, "text": f"{type(error).__name__}: {words}"}


def requests(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """Requests as they come; as soon as the parent's end of the pipe is closed, by whatever cause, the process ends."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


def limit_memory(gib: float | None) -> None:
    """Bound the address space to what is mapped now and so much more, where the system can; no core dumps."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/statm")
    if gib is not None and status.exists():
        mapped = int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        with contextlib.suppress(ValueError):  # a hard limit of the system below ours
            resource.setrlimit(resource.RLIMIT_AS, (mapped + int(gib * GIB), hard))


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    stream = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)

        def say(reply: dict[str, Any]) -> None:
            out.write(json.dumps(reply).encode() + b"\n")
            out.flush()

        incoming = requests(stream)
        module, _, name = sys.argv[1].partition(":")
        target = getattr(importlib.import_module(module), name)
        for number, request in enumerate(incoming):
            if number == 1:  # torch and its exporter are loaded: hundreds of thousands of objects that stay
                gc.collect()
                gc.freeze()
            limit_memory(request["memory_gib"])
            reply = answer(target, request, say)
            say(reply)
            if reply.get("error") == "memory":
                os._exit(3)  # what is left of it is not to be trusted with the next


if __name__ == "__main__":
    main()
