"""Recipes that come with graphgrow and want data that are not here: run end to end on stand-ins, shortened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from graphgrow.train.loop import train
from graphgrow.train.recipe import open_recipe
from tests.data.fake_cifar10 import fake_cifar10


def test_cifar10_dnm_runs_on_a_folder_as_torchvision_stores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar10(tmp_path, monkeypatch, images=12)
    recipe = open_recipe("cifar10-dnm")
    assert recipe.growth is not None
    recipe = replace(
        recipe,
        data=replace(recipe.data, options={"held_out": 12}),
        training=replace(recipe.training, epochs=3, batch_size=16),
        growth=replace(recipe.growth, plateau=0, interval=1, cool_down=0, stages=1, every=1),
    )
    record = train(recipe, tmp_path / "run", root=str(tmp_path), repeats=2)
    assert [epoch.epoch for epoch in record.epochs] == [1, 2, 3]
    assert [decision.verdict for decision in record.decisions] == ["grown"]
    assert record.stages[1].parameters > record.stages[0].parameters
    assert [stage.preserved for stage in record.stages] == [True, True]
    assert all(stage.export and stage.benchmark for stage in record.stages)
    assert (tmp_path / "run" / "grown").is_dir()
