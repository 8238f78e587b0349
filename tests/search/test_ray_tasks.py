"""The same evaluations on a real local Ray of two workers, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphgrow.errors import SearchError
from graphgrow.search.crews import crew
from graphgrow.search.engine import QUEUED, Crew, run
from graphgrow.search.pool import Pool
from graphgrow.search.recipe import Budget
from graphgrow.search.study import read_study
from tests.search import landscape
from tests.search.test_evolve import Here, lines_of, ran, started, told, wait_for_lines
from tests.search.test_pool import TARGET, jobs


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray of its own, which stays for all tests here."""
    ray = pytest.importorskip("ray")
    first = crew("ray", 2, TARGET)
    yield ray
    first.close()
    assert not ray.is_initialized()


def tasks(target: str, memory_gib: float | None = None) -> Crew:
    return crew("ray", 2, target, memory_gib)


def test_what_dies_or_raises_is_one_failure(cluster: Any, tmp_path: Path) -> None:
    crew = tasks(TARGET, memory_gib=0.5)
    requests = jobs(tmp_path, "answer", "die once", "raise", "die", "answer", "eat")
    found = {outcome.place: outcome for outcome in run(crew, requests, retries=1, seconds=120.0)}
    crew.close()
    assert cluster.is_initialized()  # it was here before, and stays
    assert {place: found[place].result for place in (0, 1, 4)} == {n: {"double": 2 * n} for n in (0, 1, 4)}
    assert [found[place].attempts for place in (0, 1, 2, 3, 5)] == [1, 2, 1, 2, 2]
    assert found[2].reason == "ValueError: as it was told"
    assert found[3].reason.startswith("its worker died")
    assert found[5].reason == "out of memory (2 attempts)"


def test_a_task_tells_what_it_is_at_and_its_time_begins_with_it(cluster: Any, tmp_path: Path) -> None:
    crew = tasks(TARGET)
    for ticket, request in enumerate(jobs(tmp_path, "hang", "hang", "hang")):
        crew.start(ticket, request)
    assert set(crew.states.values()) == {QUEUED}
    while sorted(crew.states.values()) != ["hang", "hang", QUEUED]:  # there are two processors
        assert crew.wait(60.0) == []
    crew.close()
    assert crew.states == {}


def test_what_cannot_be_called_is_a_failure(cluster: Any) -> None:
    crew = tasks("tests.search.absent:work")
    (outcome,) = run(crew, [{}], retries=1, seconds=120.0)
    crew.close()
    assert outcome.reason == "ModuleNotFoundError: No module named 'tests.search.absent'"
    assert outcome.attempts == 1


def test_memory_that_no_node_has_is_refused(cluster: Any) -> None:
    with pytest.raises(SearchError, match=r"memory_gib is 1e\+06, and no node of the Ray cluster offers more than"):
        tasks(TARGET, memory_gib=1e6)


def test_a_cluster_that_is_there_is_joined_and_finds_what_lies_in_the_folder_of_the_call(
    cluster: Any, tmp_path: Path
) -> None:
    (tmp_path / "own_search.py").write_text("from tests.search.landscape import evaluate\n", encoding="utf-8")
    script = (
        "import sys; from graphgrow.search.crews import crew; from tests.search import landscape\n"
        "from tests.search.test_evolve import ran, told\n"
        "workers = crew('ray', 2, 'own_search:evaluate')\n"
        "found = ran(sys.argv[1], landscape.recipe(generations=1), workers); workers.close()\n"
        "print(len(workers._ray.nodes()) if workers._ray.is_initialized() else 'left', len(found.results))"
    )
    address = cluster.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, "study"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["left", "6"], done.stderr
    assert len(list((tmp_path / "study" / "candidates").iterdir())) == 6
    assert cluster.is_initialized()


def test_a_task_that_takes_too_long_is_cancelled(cluster: Any, tmp_path: Path) -> None:
    crew = tasks(TARGET)
    (outcome,) = run(crew, jobs(tmp_path, "hang"), retries=0, seconds=0.0)
    assert outcome.reason == "it took longer than 0 s"
    assert crew.states == {}
    crew.close()


def test_the_evolution_is_the_same_as_anywhere(cluster: Any, tmp_path: Path) -> None:
    recipe = landscape.recipe(generations=1)
    crew = tasks(landscape.TARGET)
    found = ran(tmp_path / "ray", recipe, crew)
    crew.close()
    assert told(found) == told(ran(tmp_path / "here", recipe, Here()))


def test_a_run_that_is_killed_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """A Ray of its own each time: the killed run's workers leave with it."""
    pytest.importorskip("ray")
    whole = ran(tmp_path / "whole", landscape.recipe(budget=Budget(rungs=1)), Here())
    folder, log = tmp_path / "killed", tmp_path / "log"
    for attempt in range(2):
        process = started(folder, log, 1, "ray")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("begun")
        if attempt == 0:
            wait_for_lines(log, 4, process)
            process.send_signal(signal.SIGKILL)
        assert process.wait(120) == (-signal.SIGKILL if attempt == 0 else 0)
        process.stdout.close()
    assert Counter(lines_of(log)) == Counter(f"{number}-{rung}" for number, rung in whole.results)
    _, results, generations = read_study(folder)
    assert {key: r.objectives for key, r in results.items()} == {k: r.objectives for k, r in whole.results.items()}
    assert generations == whole.generations


def test_engines_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(crew("pool", 3), Pool)
    with pytest.raises(SearchError, match="there is no engine 'mpi'; there are pool and ray"):
        crew("mpi", 1)
    with pytest.raises(SearchError, match="workers=0: at least 1"):
        crew("pool", 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SearchError, match=r'pip install "graphgrow\[ray\]"'):
        crew("ray", 1)


def test_a_cluster_that_cannot_be_joined_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def refused(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(SearchError, match=r"Ray cannot be used: Could not find .* instance; see RAY_ADDRESS"):
        tasks(TARGET)
