"""A crew of Ray tasks: the same evaluations on a cluster whose nodes share the study's folder."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphgrow.errors import SearchError
from graphgrow.search.engine import Reply, Request

GIB = 2**30


class RayTasks:
    """Tasks of a Ray cluster, or of a Ray of its own on this machine where none is running.

    Ray's own retries are off: what dies is begun again by `engine.run`, as with processes.

    Args:
        size: number of tasks at a time, one processor each.
        target: `module:function` that they call.
        memory_gib: that one evaluation may take, which Ray reserves.

    Raises:
        SearchError: if Ray is not installed.
    """

    def __init__(self, size: int, target: str, memory_gib: float | None = None) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise SearchError(
                'the engine `ray` wants Ray, which is not installed: pip install "graphgrow[ray]"'
            ) from error
        self._size, self._target = size, target
        self._mine = not self._ray.is_initialized()
        if self._mine:
            with _same_path():
                self._ray.init(num_cpus=size, include_dashboard=False, log_to_driver=False, configure_logging=False)
        memory = {} if memory_gib is None else {"memory": int(memory_gib * GIB)}
        self._call = self._ray.remote(num_cpus=1, max_retries=0, **memory)(_call)
        self._running: dict[Any, int] = {}

    @property
    def size(self) -> int:
        """Number of tasks at a time."""
        return self._size

    @property
    def states(self) -> Mapping[int, str]:
        """By ticket; Ray does not tell what a task is at."""
        return dict.fromkeys(self._running.values(), "busy")

    def start(self, ticket: int, request: Request) -> None:
        """Submit a task."""
        self._running[self._call.remote(self._target, dict(request))] = ticket

    def wait(self, seconds: float) -> Sequence[Reply]:
        """What has ended since."""
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [self._reply(self._running.pop(reference), reference) for reference in ended]

    def give_up(self, ticket: int) -> None:
        """Cancel a task with its process."""
        for reference in [one for one, number in self._running.items() if number == ticket]:
            self._running.pop(reference)
            self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Cancel what runs, and end the Ray that was started here."""
        for ticket in list(self._running.values()):
            self.give_up(ticket)
        if self._mine:
            self._ray.shutdown()

    def _reply(self, ticket: int, reference: Any) -> Reply:
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(reference)
        except errors.OutOfMemoryError as error:
            return Reply(ticket, None, f"out of memory: {_short(error)}", again=True)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.TaskCancelledError) as error:
            return Reply(ticket, None, f"its worker died: {_short(error)}", again=True)
        if "result" in answer:
            return Reply(ticket, answer["result"])
        return Reply(ticket, None, answer["text"], again=answer["error"] == "memory")


@contextlib.contextmanager
def _same_path() -> Iterator[None]:
    """Let the workers of a Ray that starts now find the modules that this process finds."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *(path for path in sys.path if path)])  # noqa: PTH109
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


def _call(target: str, request: dict[str, Any]) -> dict[str, Any]:
    """The task: what the pool's worker does with one request."""
    import torch

    from graphgrow.search.worker import answer

    torch.set_num_threads(1)
    module, _, name = target.partition(":")
    return answer(getattr(importlib.import_module(module), name), {"job": request}, lambda reply: None)


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
