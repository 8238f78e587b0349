"""Slopes in the share of another activation: the gradient that the blend's share gets once it is there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import Declined, SignalError
from graphgrow.layers import Blend
from graphgrow.signals.swaps import SwapSignal
from graphgrow.signals.watch import Watch


@pytest.mark.parametrize("inplace", [False, True])
def test_the_slope_is_the_gradient_of_the_share(inplace: bool) -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(inplace), nn.Conv1d(4, 3, 2)).double()
    graph = gg.trace(net, torch.randn(2, 2, 8, dtype=torch.float64))
    batches = [torch.randn(5, 2, 8, dtype=torch.float64) for _ in range(3)]
    signal = SwapSignal(graph, to=("gelu", "tanh"))
    with Watch(graph.module, [signal]):
        for x in batches:
            graph.module(x).sin().mean().backward()
    scores = signal.results()
    assert [score.slope for score in scores] == sorted(score.slope for score in scores)
    for score in scores:
        grown = gg.apply(graph, score.mutation, share=False)
        (blend,) = [part for part in grown.module.modules() if isinstance(part, Blend)]
        slopes = []
        for x in batches:
            (slope,) = torch.autograd.grad(grown.module(x).sin().mean(), blend.s)
            slopes.append(float(slope))
        assert score.slope == pytest.approx(sum(slopes) / 3, rel=1e-9)
        assert score.error == pytest.approx(float(torch.tensor(slopes).std() / 3**0.5), rel=1e-4)


def test_the_present_activation_and_prelu_are_no_candidates() -> None:
    graph = gg.trace("graphgrow:mlp")
    with pytest.raises(SignalError, match="no share can be measured of prelu"):
        SwapSignal(graph, to=("prelu",))
    assert not list(SwapSignal(graph, to=("relu",)).watches())


def test_a_site_that_is_no_activation_is_named() -> None:
    graph = gg.trace("graphgrow:mlp")
    with pytest.raises(Declined, match=r"`layers\.0` is no activation that can be blended"):
        SwapSignal(graph, ["layers.0"])
