"""Marked numbers are what they were, and know where they stand."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import graphgrow as gg
from graphgrow.own_class.marked import MarkedFloat, MarkedInt, mark


class Part(nn.Module):
    def __init__(self, config: object) -> None:
        super().__init__()
        self.config, self.heads, self.eps, self.window, self.flag = config, 3, 1e-5, (7, 5), True
        self.names = ["a"]


def test_each_number_knows_its_place_and_configurations_have_one_owner() -> None:
    config = SimpleNamespace(width=8, rates=[0.5, 0.25])
    model: Any = nn.Sequential(Part(config), Part(config))
    mark(model)
    first, second = model[0], model[1]
    assert (first.heads, first.eps, first.window, first.flag) == (3, 1e-5, (7, 5), True)
    assert [type(value) for value in (first.heads, first.eps, first.flag)] == [MarkedInt, MarkedFloat, bool]
    numbers: list[Any] = [first.heads, second.eps, second.window[1], config.width, config.rates[0]]
    origins = [str(number.expression) for number in numbers]
    assert origins == ["0.heads", "1.eps", "1.window[1]", "0.config.width", "0.config.rates[0]"]
    assert first.heads * 2 == 6
    assert torch.zeros(first.heads, config.width).shape == (3, 8)


class Patches(nn.Module):
    """Works out how many patches there are from a size and a number of its own, as MobileViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = int(math.ceil(x.shape[1] / self.patch) * self.patch) // self.patch
        return x.reshape(x.shape[0], count, self.patch, 3)


def test_a_capture_goes_the_same_way_by_marked_numbers() -> None:
    """`int()` of a size that was worked out with one decided by the example, and all nodes behind had other names."""
    model = Patches()
    marked = copy.deepcopy(model)
    mark(marked)
    x = torch.randn(2, 8, 3)
    assert gg.trace(marked, x).text() == gg.trace(model, x).text()
    assert gg.trace(marked, x).module(torch.randn(3, 4, 3)).shape == (3, 2, 2, 3)
