"""Multi-objective evolution with inherited weights: the loop over generations.

Every draw follows from the recipe's seed and the number of the candidate, and selection waits for the whole generation:
so the result is the same whatever the number of workers, and a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from graphgrow.errors import SearchError
from graphgrow.recipes.tables import to_table
from graphgrow.records import CandidateRecord, GenerationRecord
from graphgrow.search.candidates import blank, candidate_folder
from graphgrow.search.engine import Crew, run
from graphgrow.search.job import Job, Key, stream
from graphgrow.search.objectives import objective
from graphgrow.search.recipe import Evolution
from graphgrow.search.selection import Place, compromise, front, hypervolume, survivors
from graphgrow.search.study import Study
from graphgrow.search.variation import require_known_to_workers

RELATIVE_WORST = 4.0  # the worst value of an objective, in multiples of the base's, where the recipe gives none
INVALID = 1e30  # stands for an infinite loss: pymoo wants finite numbers


class Watcher(Protocol):
    """Is told how an evolution comes along."""

    def started(self, jobs: Sequence[Job], done: int) -> None:
        """A rung of a generation begins; so many of its jobs were evaluated in an earlier run."""

    def evaluated(self, record: CandidateRecord) -> None:
        """One evaluation has ended."""

    def selected(self, record: GenerationRecord, state: State) -> None:
        """A generation is complete."""


class Silent:
    """A watcher that says nothing."""

    def started(self, jobs: Sequence[Job], done: int) -> None:
        """Say nothing."""

    def evaluated(self, record: CandidateRecord) -> None:
        """Say nothing."""

    def selected(self, record: GenerationRecord, state: State) -> None:
        """Say nothing."""


@dataclass
class State:
    """All that an evolution knows.

    Attributes:
        recipe: that it follows.
        folder: of its study.
        results: every evaluation of the generations so far.
        population: numbers of the survivors.
        generations: complete ones.
    """

    recipe: Evolution
    folder: Path
    results: dict[Key, CandidateRecord]
    population: list[int] = field(default_factory=list)
    generations: list[GenerationRecord] = field(default_factory=list)

    def latest(self, number: int) -> CandidateRecord | None:
        """The evaluation of a candidate in its highest rung that succeeded."""
        done = [r for rung in range(self.recipe.budget.rungs) if (r := self.results.get((number, rung))) is not None]
        done = [record for record in done if record.status == "done"]
        return done[-1] if done else None

    def point(self, record: CandidateRecord) -> tuple[float, ...]:
        """A candidate's objectives, all to be small."""
        losses = (objective(goal.name).loss(record.objectives[goal.name]) for goal in self.recipe.objectives)
        return tuple(min(loss, INVALID) for loss in losses)

    def worst(self) -> list[float]:
        """The corner of the box in which hypervolume is measured, as `point` turns values."""
        base = self.results[0, 0]
        corner = []
        for goal in self.recipe.objectives:
            one = objective(goal.name)
            value = goal.worst
            if value is None:
                value = 0.0 if one.larger_is_better else RELATIVE_WORST * base.objectives[goal.name]
            corner.append(max(one.loss(value), 1e-12))
        return corner

    def valid(self) -> list[CandidateRecord]:
        """The latest evaluation of every candidate that succeeded, by number."""
        numbers = dict.fromkeys(number for number, _ in sorted(self.results))
        return [record for number in numbers if (record := self.latest(number)) is not None]

    def front(self) -> list[CandidateRecord]:
        """The candidates that no other dominates, by the first objective, best first."""
        records = self.valid()
        chosen = [records[index] for index in front([self.point(record) for record in records])]
        return sorted(chosen, key=self.point)

    def choice(self, weights: Sequence[float]) -> CandidateRecord:
        """The one candidate of the front for these weights of the objectives.

        Raises:
            SearchError: if there is not one positive weight for each objective.
        """
        records = self.front()
        return records[compromise([self.point(record) for record in records], weights)]

    def model_folder(self, record: CandidateRecord) -> Path:
        """Where a candidate's model lies."""
        return candidate_folder(self.folder, record.number, record.rung)


def evolve(recipe: Evolution, study: Study, crew: Crew, watch: Watcher | None = None) -> State:
    """Run an evolution to its end, or go on with one.

    Args:
        recipe: what to do.
        study: where it is kept; what it holds already is not evaluated again, but for a base that failed.
        crew: who evaluates.
        watch: is told how it comes along.

    Raises:
        SearchError: if the base cannot be evaluated, with the reason, or a pass may be drawn that workers do not know.
    """
    require_known_to_workers(recipe)
    watch = watch or Silent()
    state, known = State(recipe, study.folder, {}), study.candidates()
    if (0, 0) in known and known[0, 0].status != "done":  # there is nothing to lose, and its cause may be gone
        study.forget((0, 0))
        del known[0, 0]
    for generation in range(recipe.generations + 1):
        jobs = _first(state) if generation == 0 else _offspring(state, generation)
        children = [job.number for job in jobs]
        for rung in range(1 if generation == 0 else recipe.budget.rungs):
            if rung:
                jobs = _promoted(state, jobs, rung)
            _evaluate(state, study, crew, jobs, known, watch)
        if generation == 0 and state.latest(0) is None:
            raise SearchError(f"the base cannot be evaluated: {state.results[0, 0].reason}")
        _select(state, children)
        study.add_generation(state.generations[-1])
        watch.selected(state.generations[-1], state)
    return state


def _first(state: State) -> list[Job]:
    return [Job(str(state.folder.absolute()), state.recipe, 0)]


def _offspring(state: State, generation: int) -> list[Job]:
    """The jobs of one generation: who the parents are follows from the number of each child and the population."""
    recipe = state.recipe
    records = [record for number in state.population if (record := state.latest(number)) is not None]
    places = survivors([state.point(record) for record in records], len(records))
    start = 1 + (generation - 1) * recipe.offspring
    jobs = []
    for number in range(start, start + recipe.offspring):
        draw = stream(recipe.seed, "parents", number)
        chosen = [state.results[0, 0]]
        if recipe.parents == "population":
            chosen = [records[place.index] for place in _parents(places, draw, recipe.variation.crossover)]
        numbers, rungs = tuple(one.number for one in chosen), tuple(one.rung for one in chosen)
        jobs.append(Job(str(state.folder.absolute()), recipe, number, 0, generation, numbers, rungs))
    return jobs


def _parents(places: Sequence[Place], draw: random.Random, crossover: float) -> list[Place]:
    """One parent, or two different ones with the fitter first, each the winner of a binary tournament."""

    def tournament(among: Sequence[Place]) -> Place:
        one, other = draw.choice(among), draw.choice(among)
        return other if other.beats(one) else one

    first = tournament(places)
    rest = [place for place in places if place.index != first.index]
    if draw.random() >= crossover or not rest:
        return [first]
    second = tournament(rest)
    return [second, first] if second.beats(first) else [first, second]


def _promoted(state: State, jobs: Sequence[Job], rung: int) -> list[Job]:
    """The share of a generation that is trained on, as jobs of the next rung."""
    ended = [(job, state.results[job.key]) for job in jobs]
    done = [(job, record) for job, record in ended if record.status == "done"]
    count = max(1, round(len(jobs) * state.recipe.budget.keep))
    chosen = sorted(place.index for place in survivors([state.point(record) for _, record in done], count))
    return [
        Job(job.folder, job.recipe, job.number, rung, job.generation, job.parents, job.rungs)
        for job in (done[index][0] for index in chosen)
    ]


def _evaluate(
    state: State, study: Study, crew: Crew, jobs: Sequence[Job], known: Mapping[Key, CandidateRecord], watch: Watcher
) -> None:
    """Evaluate what is missing; each outcome is in the study before the next is looked at."""
    pending = [job for job in jobs if job.key not in known]
    state.results |= {job.key: known[job.key] for job in jobs if job.key in known}
    watch.started(jobs, len(jobs) - len(pending))
    limits = state.recipe.limits
    for outcome in run(crew, [job.to_json() for job in pending], limits.retries, limits.seconds):
        job = pending[outcome.place]
        if outcome.result is None:
            record = dataclasses.replace(blank(job), reason=outcome.reason)
        else:
            record = CandidateRecord.from_json(outcome.result)
        study.add(record, outcome.attempts)
        state.results[job.key] = record
        watch.evaluated(record)


def _select(state: State, children: Iterable[int]) -> None:
    """The survivors of the population and its children; elitist, as both compete."""
    numbers = list(dict.fromkeys([*state.population, *children]))
    records = [record for number in numbers if (record := state.latest(number)) is not None]
    places = survivors([state.point(record) for record in records], state.recipe.population)
    state.population = [records[place.index].number for place in places]
    valid = state.valid()
    state.generations.append(
        GenerationRecord(
            index=len(state.generations),
            evaluations=len(state.results),
            failures=sum(record.status != "done" for record in state.results.values()),
            population=tuple(state.population),
            front=tuple(record.number for record in state.front()),
            hypervolume=hypervolume([state.point(record) for record in valid], state.worst()),
        )
    )


def begin(recipe: Evolution, folder: str | Path) -> Study:
    """The study of a recipe in a folder: a new one, or the one that is there, if its recipe is the same.

    Raises:
        SearchError: as `Study` does.
    """
    return Study(folder, to_table(recipe))
