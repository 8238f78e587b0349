"""The process of one model, which `tools.sweep.supervise` starts with a request."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tools.sweep.journal import Journal
from tools.sweep.options import Options


@dataclass(frozen=True)
class Request:
    """What one process does.

    Attributes:
        model: its name.
        options: what is done with it.
        memory_gib: how much it may use; 0: no limit.
        folder: where it writes what it finds and what it prints, and keeps its temporary files.
    """

    model: str
    options: Options
    memory_gib: float
    folder: Path

    @property
    def events(self) -> Path:
        """The journal."""
        return self.folder / "events.jsonl"

    @property
    def log(self) -> Path:
        """What is printed."""
        return self.folder / "log"


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
    from tools.sweep.singles import list_rounds, try_exports, try_round
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
        rounds = list_rounds(subject, options, journal)
        for turns in rounds[:1]:
            try_round(subject, turns, options, journal)
        try_chain(subject, options, journal)
        try_exports(subject, rounds, options, journal)
        for turns in rounds[1:]:  # last, so that a row which is stopped at its time limit lacks nothing but these
            try_round(subject, turns, options, journal)
    journal.note("done", took=time.perf_counter() - start, peak_gib=peak_gib())


def _leave_with_parent() -> None:
    """End this process as soon as its parent has ended, by whatever cause."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def print_into(log: Path) -> None:
    """Let everything that is printed from here on, by libraries in C as well, go into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def answer(request: Request) -> None:
    """Do what one request asks for."""
    _leave_with_parent()
    print_into(request.log)
    # What a killed process leaves of its temporary files lies in the folder, which its parent removes.
    os.environ["TMPDIR"] = tempfile.tempdir = str(request.folder)
    limit_memory(request.memory_gib)
    with request.events.open("a", encoding="utf-8") as stream:
        journal = Journal(stream)
        journal.begin("start")
        cover(request.model, request.options, journal)
