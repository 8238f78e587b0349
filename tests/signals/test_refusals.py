"""What signals refuse to measure, where the tests of each signal have no better place for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import Declined, SignalError
from graphgrow.graph import Graph
from graphgrow.signals.between import between, linear_map
from graphgrow.signals.places import places_of
from graphgrow.signals.skips import SkipSignal
from graphgrow.signals.splitting import SplittingSignal
from graphgrow.signals.swaps import SwapSignal
from graphgrow.signals.watch import Watch


def net(*layers: nn.Module, shape: tuple[int, ...] = (2, 3)) -> Graph:
    torch.manual_seed(0)
    return gg.trace(nn.Sequential(*layers), torch.randn(shape))


def deep() -> Graph:
    return net(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))


def test_splitting_wants_an_activation_right_behind_the_writer_and_a_gradient() -> None:
    normed = net(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2))
    with pytest.raises(Declined, match="no activation follows"):
        SplittingSignal(normed, [normed.group("0")])
    graph = net(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    signal = SplittingSignal(graph, [graph.group("0")])
    with Watch(graph.module, [signal]):
        graph.module(torch.randn(5, 3))
    with pytest.raises(SignalError, match=r"no gradient of `.*` was seen; run loss\.backward"):
        signal.results()


def test_shares_of_an_activation_want_a_gradient() -> None:
    graph = net(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    signal = SwapSignal(graph)
    with Watch(graph.module, [signal]):
        graph.module(torch.randn(5, 3))
    with pytest.raises(SignalError, match=r"no gradient of `.*` was seen; run loss\.backward"):
        signal.results()


def test_held_out_connections_are_those_that_were_measured() -> None:
    graph = deep()
    first, second = SkipSignal(graph, [("1", "5")]), SkipSignal(graph, [("3", "5")])
    with pytest.raises(SignalError, match="measure other pairs"):
        first.agreement(second)
    with pytest.raises(SignalError, match="no gradient of `5` was seen"):
        first.agreement(SkipSignal(graph, [("1", "5")]))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Conv1d(4, 4, 3, groups=2), "has groups, padding that is not of zeros"),
        (nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), "has groups, padding that is not of zeros"),
        (nn.Conv1d(4, 4, 3, padding="same"), "or padding by name"),
        (nn.Tanh(), "is neither nn.Linear nor a convolution"),
    ],
    ids=str,
)
def test_what_is_no_map_with_rows_of_its_own(layer: nn.Module, words: str) -> None:
    graph = net(layer, shape=(2, 4, 9))
    (node,) = (node for node in graph.module.graph.nodes if node.op == "call_module")
    with pytest.raises(Declined, match=words):
        linear_map(node, layer)


def test_writer_and_reader_stand_at_the_same_positions() -> None:
    graph = net(nn.Conv1d(3, 4, 3), nn.MaxPool1d(2), nn.Conv1d(4, 2, 1), shape=(2, 3, 9))
    with pytest.raises(Declined, match="has other positions where it is read than where it is written"):
        between(graph, graph.group("0"))


def test_units_that_nothing_reads_have_no_place() -> None:
    class Forgotten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.last(x), self.first(x)

    graph = gg.trace(Forgotten(), torch.randn(2, 3))
    with pytest.raises(SignalError, match="nothing sums over the units of `first`"):
        places_of(graph, graph.group("first"))
