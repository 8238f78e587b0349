"""Kolmogorov-Arnold layers with B-splines over a table of knots, and with Chebyshev polynomials."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphgrow as gg
from tests.preserved import assert_preserved


class Splines(nn.Module):
    """A spline of each input for each output beside a linear map, by the recursion of de Boor."""

    knots: torch.Tensor

    def __init__(self, inputs: int, outputs: int, pieces: int = 3, order: int = 2) -> None:
        super().__init__()
        self.order, self.outputs = order, outputs
        knots = torch.arange(-order, pieces + order + 1) * (2.0 / pieces) - 1
        self.register_buffer("knots", knots.expand(inputs, -1) + 0.1 * torch.arange(inputs).view(-1, 1))
        self.base = nn.Parameter(torch.randn(outputs, inputs))
        self.spline = nn.Parameter(torch.randn(outputs, inputs, pieces + order))
        self.scale = nn.Parameter(torch.ones(outputs, inputs))

    def bases(self, x: torch.Tensor) -> torch.Tensor:
        x, knots = x.unsqueeze(-1), self.knots
        found = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (x - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)])
            right = (knots[:, k + 1 :] - x) / (knots[:, k + 1 :] - knots[:, 1:-k])
            found = left * found[:, :, :-1] + right * found[:, :, 1:]
        return found.contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.spline * self.scale.unsqueeze(-1)).view(self.outputs, -1)
        return F.linear(F.silu(x), self.base) + F.linear(self.bases(x).view(x.size(0), -1), weight)


class Chebyshev(nn.Module):
    def __init__(self, inputs: int, outputs: int, degree: int = 3) -> None:
        super().__init__()
        self.inputs, self.outputs, self.degree = inputs, outputs, degree
        self.coefficients = nn.Parameter(torch.randn(inputs, outputs, degree + 1))
        self.register_buffer("degrees", torch.arange(degree + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = torch.tanh(x.view(-1, self.inputs, 1).expand(-1, -1, self.degree + 1)).acos()
        bases = torch.cos(angles * self.degrees)
        return torch.einsum("bid,iod->bo", bases, self.coefficients).view(-1, self.outputs)


def traced(kind: type[nn.Module]) -> gg.Graph:
    torch.manual_seed(0)
    return gg.trace(nn.Sequential(kind(3, 6), kind(6, 2)).double(), 0.7 * torch.randn(5, 3).double())


@pytest.mark.parametrize("text", ["widen(0, extra=2)", "split(0)"])
def test_the_inputs_of_a_spline_grow_with_their_knots(text: str) -> None:
    graph = traced(Splines)
    grown = gg.apply(graph, text)
    assert_preserved(graph, grown)
    verdict = gg.verify(graph, grown, modes=("eval", "train", "gradients", "alive"))
    assert verdict.preserved, verdict


def test_new_rows_of_a_table_are_rows_that_are_there() -> None:
    """Random knots would be in no order, and their distances could vanish."""
    graph = traced(Splines)
    old, new = (network.module.get_buffer("1.knots") for network in (graph, gg.apply(graph, "widen(0, extra=2)")))
    assert torch.equal(new[:6], old)
    assert torch.equal(new[6:], old[:1].expand(2, -1))


def test_polynomials_by_angles_grow_by_copies_alone() -> None:
    """At zero, where new units could stand, odd ones vanish and even ones have no slope: none would learn."""
    graph = traced(Chebyshev)
    (name,) = (group.name for group in graph.groups if group.size == 6 and group.frozen is None)
    assert_preserved(graph, gg.apply(graph, f"split({name})"))
    with pytest.raises(gg.Declined, match="may not be finite on new units"):
        gg.apply(graph, f"widen({name}, extra=2)")
