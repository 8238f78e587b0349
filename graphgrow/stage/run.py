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

        child, record = gg.run_stage(graph, "widen(stem, extra=8)", folder="runs/wide", index=1, name="widen")

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
    child, record = begin_stage(
        graph, mutations, index=index, name=name, seed=seed, optimizer=optimizer, share=share, evaluate=evaluate
    )
    if train is not None:
        start = time.perf_counter()
        train(child)
        record = replace(record, seconds=record.seconds + time.perf_counter() - start)
    elif evaluate is not None:
        record, evaluate = replace(record, accuracy_after=record.accuracy_before), None
    return child, end_stage(child, record, folder=folder, evaluate=evaluate, batch_sizes=batch_sizes, repeats=repeats)


def begin_stage(
    graph: Graph,
    mutations: Mutation | str | Iterable[Mutation | str],
    *,
    index: int,
    name: str,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    share: bool = True,
    evaluate: Callable[[Graph], float] | None = None,
    start: Callable[[Graph], None] | None = None,
) -> tuple[Graph, StageRecord]:
    """The first part of `run_stage`: apply and verify. Between this and `end_stage` the child is trained.

    Args and errors as there, but for `start`, which sets fresh weights of the verified child in place, and may
    refuse it before the optimizer is touched.

    Returns:
        The verified child, and a record of the growth alone.
    """
    if not _NAME.fullmatch(name) or index < 0:
        raise ExportError(
            f"a stage of index {index} and name {name!r} names no file; count from 0, and use letters, digits, "
            "dots, dashes and underscores"
        )
    began = time.perf_counter()
    chosen = [mutations] if isinstance(mutations, (str, Mutation)) else list(mutations)
    child = apply(graph, chosen, seed=seed, share=share)
    max_error = bound = 0.0  # nothing was changed, so nothing can differ
    if chosen:
        verdict = verify(graph, child, seed=seed)
        if verdict.preserved is not True:
            raise NotPreserved(f"{', '.join(map(str, chosen))}: {verdict}")
        max_error, bound = verdict.max_error, verdict.bound
    if start is not None:
        start(child)
    if optimizer is not None:
        child = apply(graph, chosen, seed=seed, optimizer=optimizer, share=share)
        if start is not None:
            start(child)
    before = None if evaluate is None else evaluate(child)
    record = StageRecord(
        index=index,
        name=name,
        mutations=tuple(entry.mutation for entry in child.ledger.entries[len(graph.ledger) :]),
        parameters=child.parameter_count,
        flops=count_flops(child),
        accuracy_before=before,
        accuracy_after=None,
        seconds=time.perf_counter() - began,
        preserved=True,
        max_error=max_error,
        bound=bound,
    )
    return child, record


def end_stage(
    child: Graph,
    record: StageRecord,
    *,
    folder: str | os.PathLike[str],
    evaluate: Callable[[Graph], float] | None = None,
    batch_sizes: Sequence[int] = (1, 8),
    repeats: int = 50,
) -> StageRecord:
    """The last part of `run_stage`: evaluate, export, benchmark, and write the record.

    Args:
        child: of `begin_stage`, trained by now.
        record: what `begin_stage` returned; `seconds` is added to.
        folder: made where it is missing; receives the ONNX file and the record.
        evaluate: held-out accuracy in [0, 1] of a graph.
        batch_sizes: of the benchmark.
        repeats: timed runs for each of them.

    Raises:
        ExportError, BenchmarkError: the stage's files are then those of before.
    """
    start = time.perf_counter() - record.seconds
    if evaluate is not None:
        record = replace(record, accuracy_after=evaluate(child))
    return _publish(child, record, Path(folder), start, batch_sizes, repeats)


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
