"""A trial of one model counts what it did, and what goes wrong is found with the mutations that show it."""

from __future__ import annotations

import copy
import dataclasses
import random
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.properties.written import Model, noise, stirred
from tools.campaign import trial
from tools.campaign.counts import LONG, Batch


def model() -> Model:
    return Model(
        stirred(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), 1), noise((5, 3))
    )


def run(monkeypatch: pytest.MonkeyPatch, wrong: Any = None) -> Batch:
    monkeypatch.setattr(trial, "CHAINS", 1)
    monkeypatch.setattr(trial, "LENGTHS", (LONG,))
    monkeypatch.setattr(trial, "OFTEN", 1.0)
    batch, applied = Batch(0, ""), gg.apply
    if wrong is not None:
        monkeypatch.setattr(gg, "apply", lambda graph, mutation, seed: wrong(applied(graph, mutation, seed=seed)))
    trial.Trial.run(model(), random.Random(0), batch)
    return batch


def test_right_rewrites_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = run(monkeypatch)
    assert batch.finds == []
    alone = batch.counts["verdicts"] - 1
    assert batch.counts["chains"] == 1
    assert batch.lengths == {LONG: 1}
    assert batch.counts["rewrites"] == sum(batch.passes.values()) == alone + LONG
    assert batch.counts["rewrites within verdicts"] == alone + LONG
    assert batch.counts["preserved"] + batch.counts["undetermined"] == batch.counts["verdicts"]
    assert batch.counts["replayed to the bit"] == batch.counts["verdicts"]


def test_one_weight_off_is_found_in_each_rewrite(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(grown: gg.Graph) -> gg.Graph:
        own = dataclasses.replace(grown, module=copy.deepcopy(grown.module))
        with torch.no_grad():
            for parameter in own.module.parameters():
                parameter.mul_(1 + 1e-6)
        return own

    batch = run(monkeypatch, off)
    assert batch.counts["rewrites"] == 0
    assert batch.counts["finds"] == len(batch.finds) > 8
    assert all("differ by" in find.what for find in batch.finds)
    assert all(find.model == repr(model()) and len(find.mutations) == 1 for find in batch.finds)
