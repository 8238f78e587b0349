"""A crew of processes on this machine; a worker that dies is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from graphgrow.search.engine import Reply, Request

TARGET = "graphgrow.search.evaluate:evaluate"
PATIENCE_S = 2.0  # for a process that was told to end


class Pool:
    """Processes that are fresh interpreters (none is forked), each with a fixed number of torch threads.

    They end when this process does, however it ends: they read its end of a pipe. Ctrl-C reaches this process alone.

    Args:
        size: number of workers.
        target: `module:function` that they call.
        threads: of torch, in each.
        memory_gib: that one evaluation may take; None for no limit.
    """

    def __init__(self, size: int, target: str = TARGET, threads: int = 1, memory_gib: float | None = None) -> None:
        self._size, self._target, self._threads, self._memory = size, target, threads, memory_gib
        self._workers: list[_Worker] = []
        self._replies: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self.restarts = 0

    @property
    def size(self) -> int:
        """Number of workers."""
        return self._size

    @property
    def states(self) -> Mapping[int, str]:
        """By ticket, what its worker is at."""
        return {worker.ticket: worker.state for worker in self._workers if worker.ticket is not None}

    @property
    def pids(self) -> Sequence[int]:
        """The process numbers of the workers."""
        return [worker.process.pid for worker in self._workers]

    def start(self, ticket: int, request: Request) -> None:
        """Hand a request to a free worker; one is started where there is none yet."""
        worker = next((one for one in self._workers if one.ticket is None), None)
        if worker is None:
            worker = _Worker(self._target, self._threads, self._replies)
            self._workers.append(worker)
        worker.give(ticket, {"job": request, "memory_gib": self._memory})

    def wait(self, seconds: float) -> Sequence[Reply]:
        """What has ended since."""
        replies: list[Reply] = []
        patience = seconds
        while True:
            try:
                worker, message = self._replies.get(timeout=patience) if patience else self._replies.get_nowait()
            except queue.Empty:
                return replies
            found = self._heard(worker, message)
            if found is not None:
                replies.append(found)
                patience = 0.0  # take along what is there, and wait no more

    def _heard(self, worker: _Worker, message: dict[str, Any] | None) -> Reply | None:
        if worker not in self._workers:  # it was given up, and this is the end of its pipe
            return None
        ticket = worker.ticket
        if message is None:
            self._workers.remove(worker)
            self.restarts += 1
            reason = worker.ended()
            return None if ticket is None else Reply(ticket, None, reason, again=True)
        if "at" in message or ticket is None:
            worker.state = str(message.get("at", ""))
            return None
        worker.ticket, worker.state = None, ""
        if "result" in message:
            return Reply(ticket, message["result"])
        if message["error"] == "memory":  # it ends by itself
            self._workers.remove(worker)
            self.restarts += 1
            worker.kill()
        return Reply(ticket, None, message["text"], again=message["error"] == "memory")

    def give_up(self, ticket: int) -> None:
        """Kill the worker of a request."""
        for worker in [one for one in self._workers if one.ticket == ticket]:
            self._workers.remove(worker)
            self.restarts += 1
            worker.kill()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


class _Worker:
    """One process, the thread that reads what it says, and the file that takes what it complains of."""

    def __init__(self, target: str, threads: int, replies: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        self.ticket: int | None = None
        self.state = ""
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the worker lives
        searched = [path for path in sys.path if path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *searched])}  # noqa: PTH109
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graphgrow.search.worker", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment,
        )
        self._replies = replies
        threading.Thread(target=self._read, daemon=True).start()

    def give(self, ticket: int, request: Mapping[str, Any]) -> None:
        """Send a request; that the process is gone is heard from the other pipe."""
        self.ticket, self.state = ticket, "starting"
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def ended(self) -> str:
        """Why the process has ended, in words, with the last line of its complaints."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # its pipe is closed: it is about to end
            self.process.wait(PATIENCE_S)
        self.kill()
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._complaints.seek(0)
        lines = self._complaints.read()[-2000:].decode(errors="replace").strip().splitlines()
        self._complaints.close()
        return f"its worker {how}" + (f": {lines[-1][:300]}" if lines and code > 0 else "")

    def kill(self) -> None:
        """End the process and wait for it."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                if line.endswith(b"\n"):  # the last one may be cut off: it died while it wrote
                    self._replies.put((self, json.loads(line)))
        self._replies.put((self, None))
