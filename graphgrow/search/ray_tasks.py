"""A crew of Ray tasks: the same evaluations on a cluster whose nodes share the study's folder."""

from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphgrow.errors import SearchError
from graphgrow.search.engine import QUEUED, Reply, Request

GIB = 2**30


class RayTasks:
    """Tasks of the Ray cluster that `RAY_ADDRESS` names or `ray start` began here, else of a Ray of its own.

    Ray's own retries are off: what dies is begun again by `engine.run`, as with processes. Each task is a generator: it
    tells what it is at, and then its answer.

    Args:
        size: number of tasks at a time, one processor each.
        target: `module:function` that they call; its folder is on the path there as it is here.
        memory_gib: that one evaluation may take, which Ray reserves and the task is bound to.

    Raises:
        SearchError: if Ray is not installed, its cluster cannot be reached, or no node of it has as much memory.
    """

    def __init__(self, size: int, target: str, memory_gib: float | None = None) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise SearchError(
                'the engine `ray` wants Ray, which is not installed: pip install "graphgrow[ray]"'
            ) from error
        self._size, self._target, self._memory = size, target, memory_gib
        self._mine = not self._ray.is_initialized()
        if self._mine:
            self._join()
        self._demand_memory()
        memory = {} if memory_gib is None else {"memory": int(memory_gib * GIB)}
        path = os.pathsep.join([os.getcwd(), *(path for path in sys.path if path)])  # noqa: PTH109
        self._call = self._ray.remote(
            num_cpus=1, max_retries=0, runtime_env={"env_vars": {"PYTHONPATH": path}}, **memory
        )(_call)
        self._running: dict[Any, int] = {}
        self._states: dict[int, str] = {}

    @property
    def size(self) -> int:
        """Number of tasks at a time."""
        return self._size

    @property
    def states(self) -> Mapping[int, str]:
        """By ticket, what its task is at; `QUEUED` where the cluster has not begun it yet."""
        return dict(self._states)

    def start(self, ticket: int, request: Request) -> None:
        """Submit a task."""
        self._states[ticket] = QUEUED
        self._running[self._call.remote(self._target, dict(request), self._memory)] = ticket

    def wait(self, seconds: float) -> Sequence[Reply]:
        """What has ended since."""
        if not self._running:
            return []
        told, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [reply for task in told if (reply := self._heard(task)) is not None]

    def give_up(self, ticket: int) -> None:
        """Cancel a task with its process."""
        for task in [one for one, number in self._running.items() if number == ticket]:
            self._forget(task)
            self._ray.cancel(task, force=True)

    def close(self) -> None:
        """Cancel what runs, and leave the cluster, or end the Ray that was started here."""
        for ticket in list(self._running.values()):
            self.give_up(ticket)
        if self._mine:
            self._ray.shutdown()

    def _join(self) -> None:
        quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        try:
            try:
                self._ray.init(num_cpus=self._size, **quiet)
            except ValueError:  # there is a cluster, which has the processors that it has
                self._ray.init(**quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise SearchError(f"Ray cannot be used: {_short(error)}; see RAY_ADDRESS") from error

    def _demand_memory(self) -> None:
        """A task that wants more than any node has would wait for ever."""
        nodes = [node["Resources"].get("memory", 0.0) / GIB for node in self._ray.nodes() if node["Alive"]]
        if self._memory is not None and self._memory > max(nodes, default=0.0):
            if self._mine:
                self._ray.shutdown()
            raise SearchError(
                f"limits.memory_gib is {self._memory:g}, and no node of the Ray cluster offers more than "
                f"{max(nodes, default=0.0):.1f}; lower it"
            )

    def _heard(self, task: Any) -> Reply | None:
        """What a task has told: its answer, how it died, or what it is at."""
        ticket, errors = self._running[task], self._ray.exceptions
        try:
            answer = self._ray.get(next(task))
        except errors.OutOfMemoryError as error:
            self._forget(task)
            return Reply(ticket, None, f"out of memory: {_short(error)}", again=True)
        except errors.RayTaskError as error:  # the target is not there: what it raises is an answer
            self._forget(task)
            return Reply(ticket, None, f"{type(error.cause).__name__}: {_short(error.cause)}")
        except errors.RayError as error:
            self._forget(task)
            return Reply(ticket, None, f"its worker died: {_short(error)}", again=True)
        if "at" in answer:
            self._states[ticket] = answer["at"]
            return None
        self._forget(task)
        if "result" in answer:
            return Reply(ticket, answer["result"])
        return Reply(ticket, None, answer["text"], again=answer["error"] == "memory")

    def _forget(self, task: Any) -> None:
        self._states.pop(self._running.pop(task), None)


def _call(target: str, request: dict[str, Any], memory_gib: float | None) -> Iterator[dict[str, Any]]:
    """The task: what the pool's worker does with one request; in a thread, since what it calls cannot yield words."""
    import torch

    from graphgrow.search.worker import answer, limit_memory

    yield {"at": "starting"}
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    said: queue.Queue[dict[str, Any]] = queue.Queue()

    def work() -> None:
        torch.set_num_threads(1)
        limit_memory(memory_gib)
        said.put(answer(function, {"job": request}, said.put))

    threading.Thread(target=work, daemon=True).start()
    while True:
        word = said.get()
        yield word
        if "at" not in word:
            return


def _short(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
