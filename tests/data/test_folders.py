"""Data in folders: images of the user's own, and torchvision's data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graphgrow.data.names import load_data
from graphgrow.errors import DataError
from tests.data.fake_cifar10 import fake_cifar10

DRAW = np.random.default_rng(0)


def write(folder: Path, counts: dict[str, int]) -> None:
    for place, count in counts.items():
        (folder / place).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(DRAW.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(folder / place / f"{number}.png")


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    write(tmp_path, {"train/a": 12, "train/b": 8, "test/a": 2, "test/b": 3})
    data = load_data("folder", str(tmp_path), size=8, held_out=0.2)
    assert [len(part) for part in (data.training, data.validation, data.test)] == [16, 4, 5]
    assert data.training.inputs.shape == (16, 3, 8, 8)
    assert data.test.targets.tolist() == [0, 0, 1, 1, 1]
    assert data.classes == 2
    assert torch.allclose(data.training.inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    write(tmp_path, {"val/a": 1, "val/b": 1})
    assert len(load_data("folder", str(tmp_path), size=8).validation) == 2


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --root, with train/CLASS"):
        load_data("folder")
    with pytest.raises(DataError, match=r"cannot read images from .*train"):
        load_data("folder", str(tmp_path))
    write(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1})
    with pytest.raises(DataError, match=r"test has the classes \['a'\], wanted those of train: \['a', 'b'\]"):
        load_data("folder", str(tmp_path))
    write(tmp_path, {"test/b": 1})
    with pytest.raises(DataError, match=r"held_out=0.01 of 4 images leaves nothing"):
        load_data("folder", str(tmp_path), held_out=0.01)


def test_cifar10_as_torchvision_stores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cifar10(tmp_path, monkeypatch)
    data = load_data("cifar10", str(tmp_path), held_out=5)
    assert [len(part) for part in (data.training, data.validation, data.test)] == [15, 5, 4]
    assert data.training.inputs.shape[1:] == (3, 32, 32)
    assert data.classes == 10
    with pytest.raises(DataError, match="held_out=20: 20 images are there"):
        load_data("cifar10", str(tmp_path), held_out=20)
