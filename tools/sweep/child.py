"""The process of one model: `python -m tools.sweep.child`, with the request as the first line of standard input."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from tools.sweep.journal import Journal
from tools.sweep.options import Options


def limit_memory(gib: float) -> None:
    """Bound what the process may allocate, and write no core dump; without effect where the system has no limits.

    Of private memory, not of addresses: shared libraries and what is merely reserved do not count.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if gib:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = int(gib * 2**30)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def peak_gib() -> float:
    """The peak of this process's resident memory; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def cover(name: str, options: Options, journal: Journal) -> None:
    """Do with one model all that the options ask for."""
    from tools.sweep.chain import try_chain
    from tools.sweep.outcome import DEFECTS, raised
    from tools.sweep.singles import try_passes
    from tools.sweep.subject import describe, prepare

    start = time.perf_counter()
    try:
        journal.begin("capture")
        subject = prepare(name, options)
        journal.end("captured")
        journal.begin("analysis")
        journal.end("model", **describe(subject))
    except DEFECTS as error:
        journal.end("failed", **vars(raised(error)))
    else:
        try_passes(subject, options, journal)
        try_chain(subject, options, journal)
    journal.note("done", took=time.perf_counter() - start, peak_gib=peak_gib())


def _leave_with_parent() -> None:
    """End this process as soon as the parent's end of standard input is closed, by whatever cause."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock would be held when the interpreter ends
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Answer the one request."""
    request = json.loads(sys.stdin.readline())
    _leave_with_parent()
    limit_memory(request["memory_gib"])
    with Path(request["events"]).open("a", encoding="utf-8") as stream:
        journal = Journal(stream)
        journal.begin("start")
        cover(request["model"], Options.from_json(request["options"]), journal)


if __name__ == "__main__":
    main()
