"""Data sets of torchvision and images of the user's own that lie in a folder already; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from graphgrow.data.parts import Data, Part
from graphgrow.errors import DataError

CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def torchvision_data(name: str, root: str | None, held_out: int = 5000) -> Data:
    """A data set of torchvision, read whole into memory and normalised by the training part.

    Args:
        name: one of `CLASSES`.
        root: the folder that torchvision's class is given.
        held_out: the last images of the training set, for validation.

    Raises:
        DataError: if no folder is given, or the data are not there.
    """
    if root is None:
        raise DataError(f"{name} is read from a folder: give --root, where torchvision finds {CLASSES[name]}")
    datasets = _datasets()
    kind = getattr(datasets, CLASSES[name])
    try:
        fitted, tested = (kind(root, train=train, download=False) for train in (True, False))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{Path(root)} holds no complete {CLASSES[name]} (a file is missing, or its checksum is not that of the "
            f"published one), and nothing is downloaded: put its files there, as "
            f"torchvision.datasets.{CLASSES[name]}({str(root)!r}, download=True) does; images of your own are the data "
            "`folder`"
        ) from error
    whole = _part(fitted)
    if not 0 < held_out < len(whole):
        raise DataError(f"held_out={held_out}: {len(whole)} images are there; at least one is for training")
    parts = *_cut(whole, len(whole) - held_out), _part(tested)
    return _normalised(parts, len(fitted.classes), f"{CLASSES[name]} in {root}")


def image_folder(*, root: str | None, size: int = 32, held_out: float = 0.1, seed: int = 0) -> Data:
    """Images in `train/CLASS/` and `test/CLASS/` below a folder, and in `val/CLASS/` if that is there.

    They are read whole into memory as RGB, resized to a square, and normalised by the training part.

    Args:
        root: the folder.
        size: height and width to which images are resized.
        held_out: share of the training images that are for validation where there is no `val`, drawn by the seed.
        seed: of that draw.

    Raises:
        DataError: if no folder is given, a part is missing or holds no image, or the parts have other classes.
    """
    if root is None:
        raise DataError("folder is read from a folder: give --root, with train/CLASS and test/CLASS in it")
    names = ("train", "val", "test") if (Path(root) / "val").is_dir() else ("train", "test")
    read = {name: _images(Path(root) / name, size) for name in names}
    classes = read["train"][1]
    for name, (_, theirs) in read.items():
        if theirs != classes:
            raise DataError(f"{Path(root) / name} has the classes {theirs}, wanted those of train: {classes}")
    training, test = read["train"][0], read["test"][0]
    if "val" in read:
        parts = training, read["val"][0], test
    else:
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
        cut = len(training) - round(held_out * len(training))
        if not 0 < cut < len(training):
            raise DataError(f"held_out={held_out} of {len(training)} images leaves nothing for training or validation")
        parts = *_cut(Part(training.inputs[order], training.targets[order]), cut), test
    return _normalised(parts, len(classes), f"images in {root}")


def _datasets() -> Any:
    from graphgrow.store.names import import_torchvision

    import_torchvision()
    from torchvision import datasets

    return datasets


def _images(folder: Path, size: int) -> tuple[Part, list[str]]:
    """All images of a folder, with the names of its classes."""
    datasets = _datasets()
    from torchvision.transforms import functional

    try:
        found = datasets.ImageFolder(str(folder))
        images = [functional.to_tensor(functional.resize(image, [size, size])) for image, _ in found]
    except (FileNotFoundError, OSError) as error:
        raise DataError(f"cannot read images from {folder}: {error}") from error
    return Part(torch.stack(images), torch.tensor(found.targets)), found.classes


def _cut(part: Part, place: int) -> tuple[Part, Part]:
    inputs, targets = part.inputs, part.targets
    return Part(inputs[:place], targets[:place]), Part(inputs[place:], targets[place:])


def _normalised(parts: tuple[Part, Part, Part], classes: int, source: str) -> Data:
    """Each channel by mean and deviation of the training part."""
    axes = (0, 2, 3)
    mean, deviation = parts[0].inputs.mean(axes, keepdim=True), parts[0].inputs.std(axes, keepdim=True)
    deviation = deviation.clamp(min=1e-6)  # of a channel that is the same everywhere
    fitted, held, tested = (Part((part.inputs - mean) / deviation, part.targets) for part in parts)
    return Data(fitted, held, tested, classes=classes, source=source)


def _part(dataset: Any) -> Part:
    """(count, height, width[, channels]) of bytes -> (count, channels, height, width) in [0, 1]."""
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return Part(images.float() / 255, torch.as_tensor(dataset.targets, dtype=torch.int64))
