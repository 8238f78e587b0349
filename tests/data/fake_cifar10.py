"""A folder as torchvision's CIFAR10 wants it, with a few drawn images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest


def fake_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, images: int = 4) -> None:
    """Write so many images into each of the five training files and the test file."""
    from graphgrow.store.names import import_torchvision

    import_torchvision()
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)  # it compares checksums of the real files
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: setattr(self, "classes", list("abcdefghij")))
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        pixels = draw.integers(0, 256, (images, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [number % 10 for number in range(images)]}))
