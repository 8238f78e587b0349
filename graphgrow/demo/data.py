"""scikit-learn's digits, split once and for all."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Part:
    """Images, float32 of shape (count, 1, 8, 8), and their classes, int64 of shape (count,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Digits:
    """The three parts of the data.

    Attributes:
        training: what the weights are fitted to.
        validation: decides when training stops.
        test: measures accuracy, and decides nothing.
    """

    training: Part
    validation: Part
    test: Part


def load_digits() -> Digits:
    """The 1,797 handwritten digits that scikit-learn brings along, 8x8 grey values, stratified by class.

    Half are for training, a fifth for validation, the rest for the test; the split is the same at each call. Pixels
    are normalised by mean and standard deviation of the training part.
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    bunch = datasets.load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    fitted, rest = train_test_split(range(len(labels)), train_size=0.5, stratify=labels, random_state=0)
    held, tested = train_test_split(rest, train_size=0.4, stratify=labels[rest], random_state=0)
    images = (images - images[fitted].mean()) / images[fitted].std()
    return Digits(*(Part(images[places], labels[places]) for places in (fitted, held, tested)))
