"""FLOPs against hand counts; counting leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.models import MODELS
from graphgrow.stage import count_flops


@pytest.mark.parametrize(
    ("model", "example", "flops"),
    [
        (nn.Linear(4, 3), torch.randn(5, 4), 2 * 4 * 3),
        (nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU()), torch.randn(3, 2, 5, 5), 2 * 6 * 2 * 9 * 25),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)), torch.randn(2, 4, 5, 5), 2 * 4 * 2 * 9 * 9),
    ],
)
def test_flops_of_one_sample_count_two_for_a_multiplication_and_an_addition(
    model: nn.Module, example: torch.Tensor, flops: int
) -> None:
    assert count_flops(gg.trace(model, example)) == flops


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_reference_model_is_counted(name: str) -> None:
    assert count_flops(gg.trace(f"graphgrow:{name}")) > 100_000


def test_the_model_stays_as_it_was() -> None:
    graph = gg.trace("graphgrow:vgg")
    before = {name: tensor.clone() for name, tensor in graph.module.state_dict().items()}
    graph.module.train()
    count_flops(graph)
    assert graph.module.training
    after = graph.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
