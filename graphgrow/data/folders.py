"""Data sets of torchvision that lie in a folder already; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from graphgrow.data.parts import Data, Part
from graphgrow.errors import TrainingError

CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def torchvision_data(name: str, root: str | None, held_out: int = 5000) -> Data:
    """A data set of torchvision, read whole into memory and normalised by the training part.

    Args:
        name: one of `CLASSES`.
        root: the folder that torchvision's class is given.
        held_out: the last images of the training set, for validation.

    Raises:
        TrainingError: if no folder is given, or the data are not there.
    """
    if root is None:
        raise TrainingError(f"{name} is read from a folder: give --root, where torchvision finds {CLASSES[name]}")
    from graphgrow.store.names import import_torchvision

    import_torchvision()
    from torchvision import datasets

    kind = getattr(datasets, CLASSES[name])
    try:
        fitted, tested = (kind(root, train=train, download=False) for train in (True, False))
    except (RuntimeError, OSError) as error:
        raise TrainingError(f"{CLASSES[name]} is not complete in {Path(root)}: {error}") from error
    training, test = _part(fitted), _part(tested)
    axes = (0, 2, 3)
    mean, deviation = (getattr(training.inputs, what)(axes, keepdim=True) for what in ("mean", "std"))
    inputs = [(part.inputs - mean) / deviation for part in (training, test)]
    cut = len(training) - held_out
    return Data(
        Part(inputs[0][:cut], training.targets[:cut]),
        Part(inputs[0][cut:], training.targets[cut:]),
        Part(inputs[1], test.targets),
        classes=len(fitted.classes),
        source=f"{CLASSES[name]} in {root}",
    )


def _part(dataset: Any) -> Part:
    """(count, height, width[, channels]) of bytes -> (count, channels, height, width) in [0, 1]."""
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return Part(images.float() / 255, torch.as_tensor(dataset.targets, dtype=torch.int64))
