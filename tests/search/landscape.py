"""A search without training: objectives that follow from a candidate's ancestry, and a process that can be killed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphgrow.records import CandidateRecord
from graphgrow.search.candidates import RECORD, blank, candidate_folder, publish
from graphgrow.search.job import Job, stream
from graphgrow.search.recipe import Budget, Evolution, Goal, Task

TARGET = "tests.search.landscape:evaluate"


def recipe(**changes: Any) -> Evolution:
    goals = (Goal("accuracy"), Goal("flops", worst=1000.0))
    plain = Evolution(Task("tests.search.small:model"), goals, population=4, offspring=5, generations=3)
    return replace(plain, **changes)


def evaluate(request: Mapping[str, Any], tell: Callable[[str], None] = lambda at: None) -> dict[str, Any]:
    """A child costs a little more than its parent, and is a little better or worse; every seventh fails.

    Each end of an evaluation is a line of the file that LANDSCAPE_LOG names, and takes LANDSCAPE_SECONDS.
    """
    job = Job.from_json(request)
    tell("train")
    time.sleep(float(os.environ.get("LANDSCAPE_SECONDS", "0")))
    draw = stream(job.recipe.seed, "landscape", job.number, job.rung)
    record = replace(blank(job), reason="the seventh")
    if job.number % 7 != 6:
        accuracy, flops = 0.5, 100.0
        if job.rung:
            accuracy, flops = values(job, job.number, job.rung - 1)
        elif job.parents:
            found = [values(job, number, rung) for number, rung in zip(job.parents, job.rungs, strict=True)]
            accuracy, flops = found[0][0], found[0][1] + draw.randint(0, 60)
        accuracy = min(accuracy + draw.uniform(-0.02, 0.06), 1.0)
        record = replace(record, status="done", reason="", objectives={"accuracy": accuracy, "flops": flops})
    result = publish(job, record)
    if log := os.environ.get("LANDSCAPE_LOG"):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{job.number}-{job.rung}\n")
    return result


def values(job: Job, number: int, rung: int) -> tuple[float, float]:
    text = (candidate_folder(job.folder, number, rung) / RECORD).read_text(encoding="utf-8")
    record = CandidateRecord.from_json(json.loads(text))
    return record.objectives["accuracy"], record.objectives["flops"]


def main() -> None:
    """Run a study in a process of its own: folder, engine, rungs."""
    from graphgrow.search.crews import crew
    from graphgrow.search.evolve import begin, evolve

    workers = crew(sys.argv[2], 2, TARGET)
    chosen = recipe(budget=Budget(rungs=int(sys.argv[3])))
    with begin(chosen, sys.argv[1]) as study:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        evolve(chosen, study, workers)
    workers.close()


if __name__ == "__main__":
    main()
