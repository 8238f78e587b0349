"""When the answers of a graph and of its model count as the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphgrow.capture.model.agreement import disagreement

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("found", "wanted", "fine"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0 + 1e-4], [1.0, 2.0], True),
        ([1.0, 2.0 + 1e-2], [1.0, 2.0], False),
        ([NAN, INF], [NAN, INF], True),
        ([NAN, 2.0], [1.0, 2.0], False),
        ([1.0, 2.0], [NAN, 2.0], False),
        ([INF, 2.0], [-INF, 2.0], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0, 1e-2], [0.0, 0.0], False),
    ],
)
def test_numbers(found: list[float], wanted: list[float], fine: bool) -> None:
    pair = torch.tensor(found), torch.tensor(wanted)
    assert ("computes something else" in disagreement(nn.Identity(), *pair)) is not fine


def test_structure_shape_and_type() -> None:
    x = torch.zeros(2)
    for other, words in (((x, x), "returns 1 values, the model 2"), (torch.zeros(3), "shape"), (x.double(), "float64")):
        assert words in disagreement(nn.Identity(), x, other)
    assert disagreement(nn.Identity(), torch.tensor([1]), torch.tensor([2])) == ""
