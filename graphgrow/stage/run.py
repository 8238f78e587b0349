"""The one function that carries a growth stage out, for the demo, the trainer and the search alike."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from torch.optim import Optimizer

from graphgrow.bench import benchmark
from graphgrow.errors import ExportError, NotPreserved
from graphgrow.export import export_onnx
from graphgrow.export.files import publish
from graphgrow.graph import Graph
from graphgrow.records import StageRecord
from graphgrow.rewrite.apply import apply
from graphgrow.rewrite.contract import Mutation
from graphgrow.rewrite.cost import count_flops
from graphgrow.verification.verify import verify

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def run_stage(
    graph: Graph,
    mutations: Mutation | str | Iterable[Mutation | str],
    *,
    folder: str | os.PathLike[str],
    index: int,
    name: str,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    share: bool = True,
    train: Callable[[Graph], None] | None = None,
    evaluate: Callable[[Graph], float] | None = None,
    batch_sizes: Sequence[int] = (1, 8),
    repeats: int = 50,
) -> tuple[Graph, StageRecord]:
    """Apply mutations, verify the child, train it, export it, benchmark the file, and record all of it.

    The child is verified before the optimizer is touched: the mutations are applied once without it, and once more
    with it. One seed draws the same weights both times, so that what was verified is what is trained.

    Args:
        graph: the parent.
        mutations: as for `apply`; none at all for the base of a run, which is then only trained and measured.
        folder: made where it is missing; receives `NN-name.onnx` and `NN-name.json`, the record.
        index: of the stage, from 0; the NN of the file names.
        name: of the stage; letters, digits, dots, dashes and underscores.
        seed: of the fresh weights.
        optimizer: over the parent's parameters; carried over in place once the child is verified.
        share: whether unchanged parameters are shared with the parent; training the child then trains them.
        train: trains the child in place, behind verification and in front of the export.
        evaluate: held-out accuracy in [0, 1] of a graph; called before and after training.
        batch_sizes: of the benchmark.
        repeats: timed runs for each of them.

    Returns:
        The child, and the record that was written.

    Raises:
        NotPreserved: with the verdict, if the child computes another function or nothing can be said about it. The
            optimizer and the folder are then as they were.
        MutationError, Declined, OptimizerError, Unsupported: as `apply` does; likewise.
        ExportError, BenchmarkError: the stage's files are then those of before, the optimizer is the child's.
    """
    if not _NAME.fullmatch(name) or index < 0:
        raise ExportError(
            f"a stage of index {index} and name {name!r} names no file; count from 0, and use letters, digits, "
            "dots, dashes and underscores"
        )
    start = time.perf_counter()
    chosen = [mutations] if isinstance(mutations, (str, Mutation)) else list(mutations)
    child, record = _grow(graph, chosen, seed, optimizer, share)
    before = None if evaluate is None else evaluate(child)
    after = before
    if train is not None:
        train(child)
        after = None if evaluate is None else evaluate(child)
    record = replace(
        record, index=index, name=name, flops=count_flops(child), accuracy_before=before, accuracy_after=after
    )
    return child, _publish(child, record, Path(folder), start, batch_sizes, repeats)


def _grow(
    graph: Graph, mutations: Sequence[Mutation | str], seed: int, optimizer: Optimizer | None, share: bool
) -> tuple[Graph, StageRecord]:
    """The verified child, and a record of the growth alone."""
    child = apply(graph, mutations, seed=seed, share=share)
    max_error = bound = 0.0  # nothing was changed, so nothing can differ
    if mutations:
        verdict = verify(graph, child, seed=seed)
        if verdict.preserved is not True:
            raise NotPreserved(f"{', '.join(map(str, mutations))}: {verdict}")
        max_error, bound = verdict.max_error, verdict.bound
    if optimizer is not None:
        child = apply(graph, mutations, seed=seed, optimizer=optimizer, share=share)
    record = StageRecord(
        index=0,
        name="",
        mutations=tuple(entry.mutation for entry in child.ledger.entries[len(graph.ledger) :]),
        parameters=child.parameter_count,
        flops=0,
        accuracy_before=None,
        accuracy_after=None,
        seconds=0.0,
        preserved=True,
        max_error=max_error,
        bound=bound,
    )
    return child, record


def _publish(
    graph: Graph, record: StageRecord, folder: Path, start: float, batch_sizes: Sequence[int], repeats: int
) -> StageRecord:
    """Export and benchmark in a folder of their own, then move the files into place, the record last."""
    stem = f"{record.index:02d}-{record.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".stage-", dir=folder) as scratch:
            model = Path(scratch) / f"{stem}.onnx"
            export = export_onnx(graph, model)
            timed = benchmark(model, batch_sizes, repeats=repeats)
            weights = [file for file in Path(scratch).iterdir() if file != model]
            record = replace(record, export=export, benchmark=timed, seconds=time.perf_counter() - start)
            text = Path(scratch) / f"{stem}.json"
            text.write_text(json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
            publish([model, *weights], folder / model.name)
            text.replace(folder / text.name)
    except OSError as error:
        raise ExportError(
            f"cannot write the stage {stem} to {folder}: {error.strerror or error}; make room, or choose another folder"
        ) from error
    return record
