"""Which crew an engine's name means."""

from __future__ import annotations

from graphgrow.errors import SearchError
from graphgrow.search.engine import Crew
from graphgrow.search.pool import TARGET, Pool

ENGINES = ("pool", "ray")


def crew(engine: str, workers: int, target: str = TARGET, memory_gib: float | None = None) -> Crew:
    """A crew of workers.

    Args:
        engine: `pool` for processes of this machine, `ray` for tasks of a Ray cluster.
        workers: how many evaluations run at a time.
        target: `module:function` that they call.
        memory_gib: that one evaluation may take.

    Raises:
        SearchError: if there is no such engine, or Ray is not installed.
    """
    if workers < 1:
        raise SearchError(f"workers={workers}: at least 1 is wanted")
    if engine == "pool":
        return Pool(workers, target, memory_gib=memory_gib)
    if engine == "ray":
        from graphgrow.search.ray_tasks import RayTasks

        return RayTasks(workers, target, memory_gib=memory_gib)
    raise SearchError(f"there is no engine {engine!r}; there are {' and '.join(ENGINES)}")
