"""Two real processes over gloo: the first decides, both grow alike, and what differs is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn import functional as F

import graphgrow as gg
from graphgrow.data.names import load_data
from graphgrow.errors import Declined, FolderError, TrainingError
from graphgrow.models import MLP
from graphgrow.records import TrainingRecord
from graphgrow.store.lock import locked
from graphgrow.train import loop, stages
from graphgrow.train.grower import Grower
from graphgrow.train.ranks import Ranks, joined
from graphgrow.train.schedule import Interval
from tests.train import small
from tests.train.test_loop import RECIPE

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="this torch has no gloo")


def _process(index: int, port: int, job: Callable[[Ranks, Path], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(index), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        with joined() as ranks:
            outcome = job(ranks, folder)
    except Exception:  # noqa: BLE001 - the parent shows it
        outcome = {"error": traceback.format_exc()}
    (folder / f"{index}.json").write_text(json.dumps(outcome))


def run_two(job: Callable[[Ranks, Path], Any], folder: Path) -> list[Any]:
    """What the job returns in each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["graphgrow.train.loop", "sklearn.datasets", "sklearn.model_selection"])
    processes = [context.Process(target=_process, args=(index, port, job, folder)) for index in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    outcomes = [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]
    for outcome in outcomes:
        assert "error" not in outcome, outcome["error"]
    return outcomes


def trained(ranks: Ranks, policy: str = "net2net") -> tuple[Grower, list[float]]:
    """Some epochs with two growths; the same data whatever the number of processes."""
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = Grower(graph, optimizer, policy, when=Interval(2), every=1, most_stages=2)
    for _ in range(6):
        for batch in torch.arange(96).split(32):
            share = ranks.share(batch)
            optimizer.zero_grad()
            with grower.observe():
                F.cross_entropy(grower.parallel(small.INPUTS[share]), small.TARGETS[share]).backward()
            optimizer.step()
        if proposal := grower.propose(1.0 + ranks.index):
            grower.apply(proposal)
    assert grower.stage == 2
    return grower, torch.cat([p.detach().flatten() for p in grower.module.parameters()]).tolist()


def _growing(ranks: Ranks, _: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"decisions": []}
    for policy in ("net2net", "dnm"):
        grower, found[policy] = trained(ranks, policy)
        found["decisions"].append([decision.to_json() for decision in grower.decisions])

    def decline() -> None:
        raise Declined("by the first alone")

    with pytest.raises(Declined, match="by the first alone"):
        ranks.decided(decline)
    with pytest.raises(TrainingError, match="the numbers of the processes 1 differ"):
        ranks.require_equal([torch.tensor([1.0, float(ranks.index)])], "the numbers")
    graph = small.graph()
    with torch.no_grad():
        next(graph.module.parameters()).add_(ranks.index)
    grower = Grower(graph, small.adam(graph), "net2net", when=Interval(1), verify=False)
    proposal = grower.propose(1.0)
    assert proposal is not None
    with pytest.raises(TrainingError, match="the parameters of the processes 1 differ"):
        grower.apply(proposal)
    return found


def test_the_first_decides_and_all_grow_alike_as_one_process_would(tmp_path: Path) -> None:
    first, second = run_two(_growing, tmp_path)
    assert first == second, "decisions, with the first's metric, and weights, to the bit"
    alone, weights = trained(Ranks())
    assert [decision.mutations for decision in alone.decisions] == [
        tuple(decision["mutations"]) for decision in first["decisions"][0]
    ]
    assert torch.allclose(torch.tensor(first["net2net"]), torch.tensor(weights), atol=1e-4)


def _training(ranks: Ranks, folder: Path) -> dict[str, Any]:
    setattr(stages, "end_stage", lambda graph, record, **_: record)  # noqa: B010 - exports have tests of their own
    part = replace(RECIPE.training, epochs=4)
    record = loop.train(replace(RECIPE, training=part), folder / "run")
    return {"record": replace(record, seconds=0.0).to_json()}


def test_the_trainer_shares_the_batches_and_the_first_writes(tmp_path: Path) -> None:
    first, second = run_two(_training, tmp_path)
    assert first == second
    record = TrainingRecord.from_json(first["record"])
    assert [decision.verdict for decision in record.decisions] == ["grown"]
    shared = 896  # of 898; the last batch is too small for two
    assert record.training_flops == sum(shared * 3 * epoch.flops for epoch in record.epochs)
    written = TrainingRecord.from_json(json.loads((tmp_path / "run" / "training.json").read_text()))
    assert replace(written, seconds=0.0) == record
    grown = gg.load(tmp_path / "run" / "grown", MLP(channels=1, image_size=8, hidden=(6, 6)))
    test = load_data("digits").test
    right = (grown.module.eval()(test.inputs).argmax(1) == test.targets).double().mean()
    assert float(right) == pytest.approx(record.test_accuracy)
    part = replace(RECIPE.training, epochs=4)
    with pytest.raises(TrainingError, match="checkpoints of 2 processes, now there are 1"):
        loop.train(replace(RECIPE, training=part), tmp_path / "run")


def _refused(_: Ranks, folder: Path) -> str:
    with pytest.raises(FolderError, match="another process works in") as refusal:
        loop.train(RECIPE, folder)
    return str(refusal.value)


def test_a_folder_that_another_process_works_in_is_refused_in_both(tmp_path: Path) -> None:
    with locked(tmp_path):
        first, second = run_two(_refused, tmp_path)
    assert first == second


def test_one_process_that_is_alone_decides_for_itself() -> None:
    with joined() as ranks:
        assert ranks == Ranks.present() == Ranks(0, 1)
    assert ranks.decided(lambda: 3) == 3
    assert ranks.gathered("a") == ["a"]
    assert torch.equal(Ranks(1, 2).share(torch.arange(5)), torch.tensor([1, 3]))
