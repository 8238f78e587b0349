"""Convolutions whose weight is standardised row by row: BiT's and NFNet's, as timm writes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg


class Standardised(nn.Conv2d):
    """Each row of the weight minus its mean, over its deviation; with a gain for each row, if it is wanted."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: bool = False, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1)) if gain else None
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {} if self.gain is None else {"weight": (self.gain * self.scale).view(-1)}
        rows = self.weight.reshape(1, self.out_channels, -1)
        rows = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-4, **options)
        weight = rows.reshape_as(self.weight)
        return F.conv2d(input, weight, self.bias, 1, self.padding, 1, self.groups)


def model(gain: bool, groups: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        Standardised(3, 8, 3, gain=gain), nn.GroupNorm(4, 8), nn.SiLU(),
        Standardised(8, 6, 3, gain=gain, groups=groups), nn.SiLU(),
        Standardised(6, 6, 1, gain=gain), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2),
    )  # fmt: skip


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("text", ["widen(0:groups, extra=1)", "widen(3, extra=3)", "widen(5, extra=2)"])
def test_channels_are_appended_where_rows_stay_at_their_mean(gain: bool, text: str) -> None:
    graph = gg.trace(model(gain), torch.randn(2, 3, 6, 6))
    verdict = gg.verify(graph, gg.apply(graph, text), modes="all")
    assert verdict.preserved, verdict


def test_new_columns_are_read_with_zero_and_start_at_the_mean_of_their_row() -> None:
    old = model(True).double()
    graph = gg.trace(old, torch.randn(2, 3, 6, 6).double())
    grown = gg.apply(graph, "widen(0:groups, extra=1)").module
    weight, new = old.get_parameter("3.weight"), grown.get_parameter("3.weight")
    assert torch.equal(new[:, :8], weight)
    assert torch.allclose(new[:, 8:], weight.mean((1, 2, 3), keepdim=True).expand(6, 2, 3, 3), atol=1e-15)
    assert torch.equal(grown.get_parameter("0.gain"), torch.ones(10, 1, 1, 1).double())


def test_within_groups_the_width_grows_and_what_would_count_copies_twice_is_declined() -> None:
    graph = gg.trace(model(False, groups=2), torch.randn(2, 3, 6, 6))
    for mutation in graph.mutations("widen"):
        verdict = gg.verify(graph, gg.apply(graph, mutation))
        assert verdict.preserved, f"{mutation}\n{verdict}"
    with pytest.raises(gg.Declined, match="counts copies twice"):
        gg.apply(graph, "split(3:group_width)")


class Levels(nn.Module):
    """A parameter that is normalised over two of its axes, by a norm with a weight and a bias over them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Parameter(torch.randn(3, 4, 5)), nn.LayerNorm((4, 5))
        self.norm.weight.data.normal_()
        self.norm.bias.data.normal_()
        self.read = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.einsum("rij,ij->r", self.norm(self.table), self.read)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_norm_over_two_axes_of_a_parameter(axis: int) -> None:
    torch.manual_seed(0)
    graph = gg.trace(Levels().double(), torch.randn(2, 3).double())
    (name,) = (group.name for group in graph.groups if group.size == (4, 5)[axis - 1])
    verdict = gg.verify(graph, gg.apply(graph, f"widen({name}, extra=2)"))
    assert verdict.preserved, verdict
