"""One evaluation, of a real model: what it records, what it leaves on disk, and how it fails."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import graphgrow as gg
from graphgrow.data.evaluation import score
from graphgrow.data.names import load_data
from graphgrow.errors import ModeError, RecipeError
from graphgrow.network.own import own
from graphgrow.records import CandidateRecord
from graphgrow.search import evaluate as evaluation
from graphgrow.search import variation
from graphgrow.search.candidates import candidate_folder
from graphgrow.search.evaluate import evaluate
from graphgrow.search.job import Job
from graphgrow.search.recipe import Budget, Evolution, Goal, Limits, Task, Training, Variation
from tests.preserved import assert_same_bits
from tests.search.small import model

TASK = Task("tests.search.small:model", "tests.search.small:data")
GOALS = (Goal("loss"), Goal("accuracy"), Goal("parameters"), Goal("flops"), Goal("instability"))


def recipe(**changes: Any) -> Evolution:
    return replace(Evolution(TASK, GOALS, budget=Budget(base=20, child=10)), **changes)


def run(job: Job) -> CandidateRecord:
    return CandidateRecord.from_json(evaluate(job.to_json()))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, trained."""
    folder = tmp_path_factory.mktemp("study")
    assert run(Job(str(folder), recipe(), 0)).status == "done"
    return folder


def loaded(folder: Path, number: int, rung: int = 0) -> gg.Graph:
    return gg.load(candidate_folder(folder, number, rung), model())


def test_a_child_inherits_is_verified_and_learns(study: Path) -> None:
    told: list[str] = []
    job = Job(str(study), recipe(), 1, 0, 1, (0,), (0,))
    record = CandidateRecord.from_json(evaluate(job.to_json(), told.append))
    assert told == ["inherit", "vary", "verify", "train", "measure"] == list(record.seconds)
    assert (record.status, record.reason, record.origin, record.steps) == ("done", "", "mutation", 10)
    assert record.preserved is True
    assert record.mutations
    graph, base = loaded(study, 1), loaded(study, 0)
    assert tuple(entry.mutation for entry in graph.ledger) == record.mutations
    found = score(graph.module, load_data(TASK.data).validation)
    assert record.objectives["loss"] == pytest.approx(found.loss)
    assert record.objectives["accuracy"] == pytest.approx(found.accuracy)
    assert record.objectives["parameters"] == record.parameters == graph.parameter_count
    assert record.objectives["flops"] == record.flops == graph.flops
    assert record.objectives["instability"] > 0
    before = score(base.module, load_data(TASK.data).validation)
    assert found.loss < before.loss + 0.1  # it did not start again


@pytest.mark.filterwarnings("ignore:this graph of")
def test_a_base_that_goes_two_ways_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(ModeError, match=r"holds for train mode alone, and would be run in eval mode here"):
        evaluation.base(Task("tests.search.small:two_ways", TASK.data))


def test_the_parent_is_not_trained_along(study: Path) -> None:
    before = loaded(study, 0)
    run(Job(str(study), recipe(), 2, 0, 1, (0,), (0,)))
    kept = evaluation._stored(str(study), 0, 0, TASK)
    assert_same_bits(before.module, kept.module)


def test_the_same_job_gives_the_same_model(study: Path, tmp_path: Path) -> None:
    target = candidate_folder(tmp_path, 0, 0)
    target.parent.mkdir()
    target.symlink_to(candidate_folder(study, 0, 0).absolute())
    torch.manual_seed(99)
    run(Job(str(study), recipe(), 3, 0, 1, (0,), (0,)))
    torch.manual_seed(5)
    run(Job(str(tmp_path), recipe(), 3, 0, 1, (0,), (0,)))
    assert_same_bits(loaded(study, 3).module, loaded(tmp_path, 3).module)


def test_a_higher_rung_trains_on(study: Path) -> None:
    chosen = recipe(budget=Budget(base=20, child=16, rungs=2))
    first = run(Job(str(study), chosen, 4, 0, 1, (0,), (0,)))
    second = run(Job(str(study), chosen, 4, 1, 1, (0,), (0,)))
    assert (first.steps, second.steps) == (8, 8)
    assert loaded(study, 4, 1).ledger == loaded(study, 4, 0).ledger
    assert second.objectives["loss"] != first.objectives["loss"]


def test_crossover_without_anything_to_recombine_becomes_a_mutation(study: Path) -> None:
    record = run(Job(str(study), recipe(), 5, 0, 2, (0, 0), (0, 0)))
    assert (record.origin, record.parents) == ("mutation", (0,))
    run(Job(str(study), recipe(variation=Variation(most=1)), 6, 0, 1, (0,), (0,)))
    other = run(Job(str(study), recipe(variation=Variation(most=3)), 7, 0, 1, (0,), (0,)))
    crossed = run(Job(str(study), recipe(), 8, 0, 2, (6, 7), (0, 0)))
    if crossed.origin == "crossover":
        assert set(crossed.mutations) <= set(other.mutations)
        assert crossed.preserved is True


def test_without_inheritance_the_weights_are_fresh(study: Path) -> None:
    chosen = recipe(variation=Variation(inherit=False), budget=Budget(base=20, child=0))
    record = run(Job(str(study), chosen, 9, 0, 1, (0,), (0,)))
    assert record.preserved is True  # of the architecture's mutation, before they were drawn
    kept, fresh = dict(loaded(study, 0).module.named_parameters()), dict(loaded(study, 9).module.named_parameters())
    assert not any(torch.equal(fresh[name], tensor) for name, tensor in kept.items() if tensor.dim() > 1)


def test_several_seeds_have_a_spread(study: Path) -> None:
    record = run(Job(str(study), recipe(training=Training(seeds=3)), 10, 0, 1, (0,), (0,)))
    assert record.spread["loss"] > 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limits": Limits(parameters=1), "variation": Variation(tries=2)}, "SearchError: no mutation was admissible"),
        ({"training": Training(learning_rate=1e30)}, "SearchError: the loss is (nan|inf) in step"),
    ],
)
def test_failures_of_a_candidate_are_records(study: Path, changes: dict[str, Any], reason: str) -> None:
    number = 20 + sum(map(ord, reason))
    record = run(Job(str(study), recipe(**changes), number, 0, 1, (0,), (0,)))
    assert record.status == "failed"
    assert re.match(reason, record.reason)
    assert record.objectives == {}
    assert [path.name for path in candidate_folder(study, number, 0).iterdir()] == ["record.json"]


def test_logits_that_are_not_finite_are_a_failure_whatever_their_accuracy(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        evaluation, "train", lambda graph, *_: graph.module.get_parameter("4.bias").data.fill_(math.nan)
    )
    record = run(Job(str(study), recipe(), 13, 0, 1, (0,), (0,)))
    assert (record.status, record.reason) == ("failed", "SearchError: the validation loss is nan after the training")


def test_a_base_beyond_the_limits_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    record = run(Job(str(tmp_path), recipe(limits=Limits(flops=100)), 0))
    assert re.match(r"SearchError: it has \d+ parameters and [\d,]+ FLOPs, more than the limits", record.reason)
    assert "train" not in record.seconds


def test_a_child_that_computes_something_else_is_not_trained(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = variation.mutate

    def broken(*args: Any) -> gg.Graph:
        child = own(honest(*args))
        child.module.get_parameter("4.bias").data += 0.1
        return child

    monkeypatch.setattr(evaluation, "mutate", broken)
    record = run(Job(str(study), recipe(), 11, 0, 1, (0,), (0,)))
    assert (record.status, record.preserved, record.steps) == ("failed", False, 0)
    assert record.reason.startswith("NotPreserved: ")
    assert "train" not in record.seconds


def test_what_was_put_in_place_first_counts(study: Path) -> None:
    job = Job(str(study), recipe(), 12, 0, 1, (0,), (0,))
    first = run(job)
    assert run(job).seconds == first.seconds
    assert not list(candidate_folder(study, 12, 0).parent.glob(".*"))


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Task("tests.search.small:absent", TASK.data), "ModelError: 'tests.search.small' has no 'absent'"),
        (Task(TASK.model, "digit"), "DataError: there is no data 'digit'; there are digits, "),
        (Task(TASK.model, "tests.search.small:absent"), "DataError: cannot get the data tests.search.small:absent"),
        (Task(TASK.model, "tests.search.small:foreign"), "DataError: tests.search.small:foreign returns a list"),
    ],
)
def test_a_base_that_cannot_be_had(task: Task, reason: str, tmp_path: Path) -> None:
    assert run(Job(str(tmp_path), recipe(task=task), 0)).reason.startswith(reason)


def test_a_request_that_is_no_job() -> None:
    with pytest.raises(RecipeError, match="job: folder, recipe, number must be given"):
        evaluate({})
