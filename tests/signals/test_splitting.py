"""The splitting index: against the loss of a net whose unit was really split."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import Declined
from graphgrow.signals.splitting import SplittingSignal
from graphgrow.signals.watch import Watch


def _index(net: Any, x: torch.Tensor, **options: Any) -> torch.Tensor:
    graph = gg.trace(net, x[:2])
    signal = SplittingSignal(graph, **options)
    with Watch(graph.module, [signal]):
        graph.module(x).square().mean().backward()
    return signal.results()["0"].index


def _split(net: Any, unit: int, direction: torch.Tensor) -> Any:
    """Two halves of one unit, parted by +- direction."""
    count = net[0].weight.shape[0]
    wider: Any = nn.Sequential(nn.Linear(3, count + 1), copy.deepcopy(net[1]), nn.Linear(count + 1, 2)).double()
    with torch.no_grad():
        weight = torch.cat([net[0].weight, net[0].weight[unit : unit + 1] - direction])
        weight[unit] += direction
        wider[0].weight.copy_(weight)
        wider[0].bias.copy_(torch.cat([net[0].bias, net[0].bias[unit : unit + 1]]))
        read = torch.cat([net[2].weight, net[2].weight[:, unit : unit + 1] / 2], 1)
        read[:, unit] /= 2
        wider[2].weight.copy_(read)
        wider[2].bias.copy_(net[2].bias)
    return wider


def _bilinear(net: Any, x: torch.Tensor, unit: int) -> torch.Tensor:
    """The second-order change of the loss when the unit's halves part, by finite differences along a basis."""
    eps, base = 1e-4, float(net(x).square().mean().detach())
    found = torch.zeros(3, 3, dtype=torch.float64)
    basis = torch.eye(3, dtype=torch.float64) * eps

    def change(direction: torch.Tensor) -> float:
        return 2 * (float(_split(net, unit, direction)(x).square().mean().detach()) - base) / eps**2

    for i in range(3):
        for j in range(3):
            found[i, j] = (change(basis[i] + basis[j]) - change(basis[i]) - change(basis[j])) / 2
    return found


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU()])
def test_the_index_is_the_curvature_of_the_loss_when_halves_part(activation: nn.Module) -> None:
    net: Any = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2)).double()
    x = torch.randn(12, 3, dtype=torch.float64)
    found = _index(net, x)
    for unit in range(4):
        expected = torch.linalg.eigvalsh(_bilinear(net, x, unit))[0]
        assert float(found[unit]) == pytest.approx(float(expected), rel=1e-3, abs=1e-5)


def test_a_subspace_gives_no_lower_index() -> None:
    net: Any = nn.Sequential(nn.Conv1d(8, 4, 3), nn.SiLU(), nn.Conv1d(4, 2, 1)).double()
    x = torch.randn(8, 8, 12, dtype=torch.float64)
    assert bool((_index(net, x, most=10) >= _index(net, x) - 1e-12).all())


def test_a_piecewise_linear_activation_declines() -> None:
    for activation in (nn.ReLU(), nn.LeakyReLU(0.1), nn.Hardtanh()):
        graph = gg.trace(nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2)), torch.randn(2, 3))
        with pytest.raises(Declined, match="piecewise linear"):
            SplittingSignal(graph, [graph.group("0")])
