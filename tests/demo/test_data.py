"""The digits: three parts that share nothing, each with all classes."""

from __future__ import annotations

import torch

from graphgrow.demo.data import load_digits


def test_the_parts_are_disjoint_and_complete() -> None:
    digits = load_digits()
    parts = (digits.training, digits.validation, digits.test)
    assert [len(part) for part in parts] == [898, 359, 540]
    images = torch.cat([part.images for part in parts])
    assert images.shape == (1797, 1, 8, 8)
    assert len(torch.unique(images.flatten(1), dim=0)) == 1797


def test_every_class_is_in_every_part_as_often() -> None:
    digits = load_digits()
    for part in (digits.training, digits.validation, digits.test):
        shares = torch.bincount(part.labels, minlength=10) / len(part)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_the_training_part_is_normalised_and_the_split_is_fixed() -> None:
    first, second = load_digits(), load_digits()
    assert abs(float(first.training.images.mean())) < 1e-5
    assert abs(float(first.training.images.std()) - 1) < 1e-5
    assert torch.equal(first.test.images, second.test.images)
