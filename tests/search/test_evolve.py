"""The loop over generations on a landscape without training: the same whoever evaluates, and whenever it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphgrow.errors import SearchError
from graphgrow.records import CandidateRecord
from graphgrow.search.candidates import blank, candidate_folder, publish
from graphgrow.search.engine import Reply, Request
from graphgrow.search.evolve import State, begin, evolve
from graphgrow.search.job import Job
from graphgrow.search.pool import Pool
from graphgrow.search.recipe import Budget, Evolution, Goal, Variation
from graphgrow.search.study import read_study
from tests.search import landscape


class Here:
    """A crew of this process; what was started last is answered first, so that the order is not that of the numbers."""

    def __init__(self, size: int = 3) -> None:
        self.size = size
        self.jobs: list[Job] = []
        self._waiting: list[tuple[int, Request]] = []

    @property
    def states(self) -> Mapping[int, str]:
        return {}

    def start(self, ticket: int, request: Request) -> None:
        self._waiting.append((ticket, request))
        self.jobs.append(Job.from_json(request))

    def wait(self, seconds: float) -> Sequence[Reply]:
        ticket, request = self._waiting.pop()
        return [Reply(ticket, landscape.evaluate(request))]

    def give_up(self, ticket: int) -> None: ...

    def close(self) -> None: ...


def ran(folder: Path, recipe: Evolution, crew: Any = None) -> State:
    with begin(recipe, folder) as study:
        return evolve(recipe, study, crew or Here())


def told(state: State) -> Any:
    """All of a state that does not depend on where and when it was run."""
    return [
        {key: (r.parents, r.status, r.objectives) for key, r in sorted(state.results.items())},
        state.generations,
    ]


def test_the_result_is_the_same_whoever_evaluates(tmp_path: Path) -> None:
    recipe = landscape.recipe(budget=Budget(rungs=2))
    first = ran(tmp_path / "a", recipe)
    pool = Pool(3, landscape.TARGET)
    try:
        assert told(ran(tmp_path / "b", recipe, pool)) == told(first)
    finally:
        pool.close()
    assert told(ran(tmp_path / "c", recipe, Here(1))) == told(first)
    assert told(ran(tmp_path / "d", landscape.recipe(seed=1, budget=Budget(rungs=2)))) != told(first)


def test_selection_is_elitist_and_failures_are_recorded(tmp_path: Path) -> None:
    state = ran(tmp_path, landscape.recipe(generations=5))
    volumes = [record.hypervolume for record in state.generations]
    assert volumes == sorted(volumes)
    assert volumes[-1] > volumes[0]
    failed = [record.number for record in state.results.values() if record.status == "failed"]
    assert failed == [6, 13, 20]
    assert state.generations[-1].failures == 3
    assert not set(failed) & {number for record in state.generations for number in record.population}
    assert all(len(record.population) <= 4 for record in state.generations)
    about, found, generations = read_study(tmp_path)
    assert found == state.results
    assert generations == state.generations
    assert about["recipe"]["population"] == 4


def test_parents_are_survivors_and_the_fitter_comes_first(tmp_path: Path) -> None:
    crew = Here()
    state = ran(tmp_path, landscape.recipe(variation=Variation(crossover=1.0), generations=4), crew)
    for job in crew.jobs:
        if job.generation > 1:
            assert set(job.parents) <= set(state.generations[job.generation - 1].population)
        if len(job.parents) == 2:
            first, second = (state.point(state.results[number, 0]) for number in job.parents)
            assert not all(b <= a for a, b in zip(first, second, strict=True))
    assert any(len(job.parents) == 2 for job in crew.jobs)


def test_a_random_search_goes_from_the_base(tmp_path: Path) -> None:
    crew = Here()
    ran(tmp_path, landscape.recipe(parents="base"), crew)
    assert {job.parents for job in crew.jobs} == {(), (0,)}


def test_successive_halving_trains_the_better_half_on(tmp_path: Path) -> None:
    crew = Here()
    state = ran(tmp_path, landscape.recipe(budget=Budget(rungs=3), generations=2, offspring=8), crew)
    rungs = Counter((job.generation, job.rung) for job in crew.jobs)
    assert rungs == {(0, 0): 1, **{(g, r): n for g in (1, 2) for r, n in enumerate((8, 4, 2))}}
    for generation in (1, 2):
        first = [job for job in crew.jobs if (job.generation, job.rung) == (generation, 0)]
        points = {job.number: state.point(r) for job in first if (r := state.results[job.key]).status == "done"}
        on = {job.number for job in crew.jobs if (job.generation, job.rung) == (generation, 1)}
        best = {n for n, p in points.items() if not any(dominates(q, p) for q in points.values())}
        assert best <= on or on <= best


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def test_all_rungs_together_are_the_budget() -> None:
    budget = Budget(child=300, rungs=3)
    assert [budget.amount(rung) for rung in range(3)] == [75, 75, 150]
    assert Budget(child=300).amount(0) == 300


def test_nan_is_never_best(tmp_path: Path) -> None:
    state = ran(tmp_path, landscape.recipe(generations=0))
    base = state.results[0, 0]
    bad = CandidateRecord(**{**vars(base), "number": 1, "objectives": {"accuracy": float("nan"), "flops": 1.0}})
    worse = CandidateRecord(**{**vars(base), "number": 2, "objectives": {"accuracy": 0.1, "flops": 1.0}})
    state.results |= {(1, 0): bad, (2, 0): worse}
    assert {record.number for record in state.front()} == {0, 2}


def test_a_base_that_fails_ends_the_search(tmp_path: Path) -> None:
    class Failing(Here):
        def wait(self, seconds: float) -> Sequence[Reply]:
            ticket, _ = self._waiting.pop()
            return [Reply(ticket, None, "no such model")]

    with pytest.raises(SearchError, match="the base cannot be evaluated: no such model"):
        ran(tmp_path, landscape.recipe(), Failing())


def test_a_base_that_failed_is_tried_again_by_the_next_call(tmp_path: Path) -> None:
    """Its cause may be gone, as a file of data that was not there."""

    class Failing(Here):
        def wait(self, seconds: float) -> Sequence[Reply]:
            ticket, request = self._waiting.pop()
            job = Job.from_json(request)
            return [Reply(ticket, publish(job, replace(blank(job), reason="no data")))]

    recipe = landscape.recipe(generations=1)
    with pytest.raises(SearchError, match="no data"):
        ran(tmp_path, recipe, Failing())
    state = ran(tmp_path, recipe)
    assert state.results[0, 0].status == "done"
    assert read_study(tmp_path)[1] == state.results


def test_the_worst_value_of_a_goal_without_one(tmp_path: Path) -> None:
    state = ran(tmp_path, landscape.recipe(objectives=(Goal("accuracy"), Goal("flops")), generations=0))
    assert state.worst() == [1.0, 400.0]


def test_choice_follows_the_weights(tmp_path: Path) -> None:
    state = ran(tmp_path, landscape.recipe(generations=5))
    front = state.front()
    assert len(front) > 2
    assert state.choice((1000.0, 1.0)).number == front[0].number
    assert state.choice((1.0, 1000.0)).number == front[-1].number
    with pytest.raises(SearchError, match="one positive weight for each objective"):
        state.choice((1.0,))


def started(folder: Path, log: Path, rungs: int, engine: str = "pool") -> subprocess.Popen[str]:
    environment = {**os.environ, "LANDSCAPE_LOG": str(log), "LANDSCAPE_SECONDS": "0.01"}
    command = [sys.executable, "-m", "tests.search.landscape", str(folder), engine, str(rungs)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def lines_of(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").split() if log.exists() else []


def wait_for_lines(log: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many are in a log, or the process has ended; it has the core to itself meanwhile."""
    while process.poll() is None and len(lines_of(log)) < count:
        time.sleep(0.002)


def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """A real run is killed after some evaluations, again and again, until it gets through."""
    whole = ran(tmp_path / "whole", landscape.recipe(budget=Budget(rungs=2)))
    folder, log, draw = tmp_path / "killed", tmp_path / "log", random.Random(0)
    for attempt in range(4):
        process = started(folder, log, 2)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("begun")
        enough = len(lines_of(log)) + draw.randint(2, 6)
        if attempt < 3:
            wait_for_lines(log, enough, process)
            process.send_signal(signal.SIGKILL)
        assert process.wait(60) == (-signal.SIGKILL if attempt < 3 else 0)
        process.stdout.close()
        known = set(read_study(folder)[1])
        assert attempt == 3 or 0 < len(known) < len(whole.results)
    evaluated = Counter(lines_of(log))
    assert max(evaluated.values()) == 1
    assert set(evaluated) == {f"{number}-{rung}" for number, rung in whole.results}
    _, results, generations = read_study(folder)
    assert {key: r.objectives for key, r in results.items()} == {k: r.objectives for k, r in whole.results.items()}
    assert generations == whole.generations


def test_a_finished_study_evaluates_nothing_again(tmp_path: Path) -> None:
    first = ran(tmp_path, landscape.recipe())
    crew = Here()
    assert told(ran(tmp_path, landscape.recipe(), crew)) == told(first)
    assert crew.jobs == []


def test_a_folder_without_its_row_is_taken_up(tmp_path: Path) -> None:
    """The process died between the end of an evaluation and its record in the study."""
    recipe = landscape.recipe(generations=1)
    landscape.evaluate(Job(str(tmp_path), recipe, 0).to_json())
    (tmp_path / "candidates" / ".00001-0-unfinished").mkdir()
    crew = Here()
    state = ran(tmp_path, recipe, crew)
    assert 0 not in [job.number for job in crew.jobs]
    assert (0, 0) in state.results
    assert not [path for path in (tmp_path / "candidates").iterdir() if path.name.startswith(".")]
    assert candidate_folder(tmp_path, 1, 0).is_dir()
