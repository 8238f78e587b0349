"""The evaluation of one candidate: inherit, vary, verify, train, measure. It runs in a worker."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import torch

from graphgrow.data.evaluation import score
from graphgrow.data.names import load_data
from graphgrow.data.parts import Data
from graphgrow.errors import GraphGrowError, NotPreserved, SearchError
from graphgrow.graph import Graph
from graphgrow.network.own import own
from graphgrow.records import CandidateRecord
from graphgrow.search.candidates import blank, candidate_folder, publish
from graphgrow.search.job import Job, stream, stream_seed
from graphgrow.search.objectives import TAIL, Trained, objective
from graphgrow.search.recipe import Task
from graphgrow.search.training import train
from graphgrow.search.variation import cross, mutate, within
from graphgrow.store.folder import load, save
from graphgrow.store.names import build
from graphgrow.store.tracing import trace
from graphgrow.verification.verify import verify

Tell = Callable[[str], None]


def evaluate(request: Mapping[str, Any], tell: Tell = lambda at: None) -> dict[str, Any]:
    """Evaluate one candidate and put its folder in place: the model as `gg.save` writes it, and the record.

    What goes wrong with the candidate itself is a record of status "failed"; the folder then holds the record alone.

    Args:
        request: a job as JSON.
        tell: is told what is being done, in a word.

    Returns:
        The candidate's record as JSON.

    Raises:
        SearchError: if the request is no job.
        OSError: if the folder cannot be written.
    """
    job = Job.from_json(request)
    work = _Work(job, tell)
    graph: Graph | None = None
    try:
        with torch.random.fork_rng(devices=[]):
            graph, record = work.done()
    except GraphGrowError as error:
        record = work.failed(f"{type(error).__name__}: {error}")
    return publish(job, record, None if graph is None else lambda folder: save(graph, folder))


class _Work:
    """One evaluation on its way; what it has found out so far goes into the record, also of a failure."""

    def __init__(self, job: Job, tell: Tell) -> None:
        self.job, self._tell = job, tell
        self._seconds: dict[str, float] = {}
        self._record = dataclasses.replace(blank(job), seconds=self._seconds)

    def done(self) -> tuple[Graph, CandidateRecord]:
        """The trained candidate and its record."""
        recipe, job = self.job.recipe, self.job
        graph = self._made()
        data = data_of(recipe.task.data)
        amount = recipe.budget.amount(job.rung) if job.parents else recipe.budget.base
        trained: list[Graph] = []
        courses: list[list[float]] = []
        with self._part("train"):
            for number in range(recipe.training.seeds):
                twin = own(graph)  # here it stops sharing tensors with its parent
                seed = stream_seed(recipe.seed, "train", job.number, job.rung, number)
                courses.append(train(twin, data, recipe.training, recipe.budget.unit, amount, seed))
                trained.append(twin)
            scores = [score(twin.module, data.validation) for twin in trained]
        if not all(math.isfinite(one.loss) for one in scores):  # the accuracy of such logits would look like any other
            raise SearchError(f"the validation loss is {max(one.loss for one in scores)} after the training")
        losses, accuracies = tuple(one.loss for one in scores), tuple(one.accuracy for one in scores)
        values: dict[str, tuple[float, float]] = {}
        with self._part("measure"):
            seen = Trained(trained[0], losses, accuracies, tuple(courses[0][-TAIL:]), self._record.flops)
            for goal in recipe.objectives:
                values[goal.name] = objective(goal.name).measure(seen)
        self._note(
            status="done",
            objectives={name: value for name, (value, _) in values.items()},
            spread={name: spread for name, (_, spread) in values.items() if spread},
            steps=len(courses[0]),
        )
        return trained[0], self._record

    def failed(self, reason: str) -> CandidateRecord:
        """The record of a candidate that cannot be used."""
        self._note(status="failed", reason=reason)
        return self._record

    def _made(self) -> Graph:
        """The candidate before its training, verified against the parent that it was made from."""
        job, task = self.job, self.job.recipe.task
        if not job.parents:
            with self._part("inherit"):
                graph = base(task)
            self._note(parameters=graph.parameter_count, flops=graph.flops)
            if not within(graph, job.recipe.limits):
                raise SearchError(
                    f"it has {graph.parameter_count:,} parameters and {graph.flops:,} FLOPs, more than the limits of "
                    "the recipe; raise them, or begin with less"
                )
            return graph
        if job.rung:
            with self._part("inherit"):
                graph = _stored(job.folder, job.number, job.rung - 1, task)
            self._note(parameters=graph.parameter_count, flops=graph.flops)
            return graph
        with self._part("inherit"):
            fitter, *others = (
                _stored(job.folder, number, rung, task) for number, rung in zip(job.parents, job.rungs, strict=True)
            )
        with self._part("vary"):
            graph = self._varied(fitter, *others)
            names = tuple(entry.mutation for entry in graph.ledger.entries[len(fitter.ledger) :])
            self._note(mutations=names, parameters=graph.parameter_count, flops=graph.flops)
        with self._part("verify"):
            verdict = verify(fitter, graph, seed=job.number, batch_sizes=(1,))
        self._note(preserved=verdict.preserved, max_error=verdict.max_error, bound=verdict.bound)
        if verdict.preserved is not True:
            raise NotPreserved(f"{', '.join(names)}: {verdict}")
        return graph if job.recipe.variation.inherit else _fresh(graph, stream_seed(job.recipe.seed, job.number))

    def _varied(self, fitter: Graph, *others: Graph) -> Graph:
        recipe = self.job.recipe
        draw = stream(recipe.seed, "vary", self.job.number)
        if others:
            with contextlib.suppress(SearchError):  # nothing to recombine: it becomes a mutation of the fitter one
                return cross(fitter, others[0], draw, recipe.limits)
            self._note(origin="mutation", parents=self.job.parents[:1])
        return mutate(fitter, draw, recipe.variation, recipe.limits)

    def _note(self, **found: Any) -> None:
        self._record = dataclasses.replace(self._record, **found)

    @contextlib.contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self._tell(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = time.perf_counter() - start


def base(task: Task) -> Graph:
    """The base of a search, with the weights of the task's seed.

    Raises:
        ModelError, CaptureError: if there is no such model, or it cannot be captured with the data's inputs.
    """
    example = data_of(task.data).training.inputs[:2]
    graph = trace(base_model(task), example)
    graph.require_modes("train", "eval")
    return graph


def base_model(task: Task) -> torch.nn.Module:
    """The base as a module."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        return build(task.model)[0]


@cache
def data_of(name: str) -> Data:
    """The data of a search, read once in each process.

    Raises:
        DataError: if there are no such data.
    """
    return load_data(name)


@lru_cache(maxsize=16)
def _stored(folder: str, number: int, rung: int, task: Task) -> Graph:
    """A candidate that was evaluated; never trained, so that many children may share its tensors."""
    return load(candidate_folder(folder, number, rung), base_model(task))


def _fresh(graph: Graph, seed: int) -> Graph:
    """The same architecture with torch's own starting weights, as if it had no parent."""
    fresh = own(graph)
    torch.manual_seed(seed)
    for part in fresh.module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return fresh
