"""scikit-learn's digits, split once and for all."""

from __future__ import annotations

import torch

from graphgrow.data.parts import Data, Part


def digits() -> Data:
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
    training, validation, test = (Part(images[places], labels[places]) for places in (fitted, held, tested))
    return Data(training, validation, test, classes=10, source="scikit-learn's digits, 8x8 pixels")
