"""Candidates on disk: a folder for each evaluation, put in place as a whole. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphgrow.records import CandidateRecord
from graphgrow.search.job import Job

RECORD = "record.json"


def candidate_folder(study: str | Path, number: int, rung: int) -> Path:
    """Where a candidate's model and record lie once it was evaluated."""
    return Path(study) / "candidates" / f"{number:05d}-{rung}"


def blank(job: Job) -> CandidateRecord:
    """The record of an evaluation of which nothing is known yet: failed, for no reason."""
    return CandidateRecord(
        number=job.number,
        rung=job.rung,
        generation=job.generation,
        parents=job.parents,
        origin="base" if not job.parents else "crossover" if len(job.parents) > 1 else "mutation",
        mutations=(),
        status="failed",
        reason="",
        objectives={},
        spread={},
        parameters=0,
        flops=0,
        preserved=None,
        max_error=0.0,
        bound=0.0,
        steps=0,
        seconds={},
    )


def publish(job: Job, record: CandidateRecord, save: Callable[[Path], object] | None = None) -> dict[str, Any]:
    """Write the candidate's folder as a whole, or not at all; one that is there already is left, and its record counts.

    Args:
        job: of the evaluation.
        record: that came of it.
        save: writes the model into the folder that it is given; None where there is none.

    Returns:
        The record that lies there now, as JSON.

    Raises:
        OSError: if it cannot be written.
    """
    target = candidate_folder(job.folder, job.number, job.rung)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        if save is not None:
            save(scratch)
        text = json.dumps(record.to_json(), indent=1, allow_nan=False)
        (scratch / RECORD).write_text(text + "\n", encoding="utf-8")
        with contextlib.suppress(OSError):  # somebody was faster: a worker of a run whose end it did not notice yet
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found: dict[str, Any] = json.loads((target / RECORD).read_text(encoding="utf-8"))
    return found
