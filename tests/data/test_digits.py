"""The digits: three parts that share nothing, each with all classes."""

from __future__ import annotations

import torch

from graphgrow.data.digits import digits


def test_the_parts_are_disjoint_and_complete() -> None:
    data = digits()
    parts = (data.training, data.validation, data.test)
    assert [len(part) for part in parts] == [898, 359, 540]
    images = torch.cat([part.inputs for part in parts])
    assert images.shape == (1797, 1, 8, 8)
    assert len(torch.unique(images.flatten(1), dim=0)) == 1797


def test_every_class_is_in_every_part_as_often() -> None:
    data = digits()
    for part in (data.training, data.validation, data.test):
        shares = torch.bincount(part.targets, minlength=10) / len(part)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_the_training_part_is_normalised_and_the_split_is_fixed() -> None:
    first, second = digits(), digits()
    assert abs(float(first.training.inputs.mean())) < 1e-5
    assert abs(float(first.training.inputs.std()) - 1) < 1e-5
    assert torch.equal(first.test.inputs, second.test.inputs)
