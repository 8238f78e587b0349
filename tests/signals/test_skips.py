"""Skip scores: the gradient that the weights of a really added connection get, chance, and costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import SignalError
from graphgrow.graph import Graph
from graphgrow.signals.skips import SkipScore, SkipSignal
from graphgrow.signals.watch import Watch
from tests.passes.test_add_skip import Maps


def _score(graph: Graph, x: torch.Tensor, source: str, target: str, **options: int) -> SkipScore:
    signal = SkipSignal(graph, [(source, target)], rows=len(x), **options)
    with Watch(graph.module, [signal]):
        graph.module(x).sin().mean().backward()
    (found,) = signal.results()
    return found


def _real_gradient(graph: Graph, x: torch.Tensor, score: SkipScore) -> torch.Tensor:
    """Of the one new parameter of the connection."""
    grown = gg.apply(graph, score.mutation, share=False)
    (weight,) = [p for name, p in grown.module.named_parameters() if "add_skip" in name]
    grown.module(x).sin().mean().backward()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize(
    ("source", "target"),
    [("act1", "act4"), ("act2", "act3"), ("act1", "act2"), ("act2", "act4")],
    ids=["gate", "gate at half", "pooled projection", "interpolated projection"],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_the_norm_is_that_of_the_gradient_of_a_connection_really_added(source: str, target: str, inplace: bool) -> None:
    graph = gg.trace(Maps(inplace=inplace).double(), torch.randn(2, 2, 8, 8, dtype=torch.float64))
    graph.module.eval()
    x = torch.randn(6, 2, 8, 8, dtype=torch.float64)
    score = _score(graph, x, source, target)
    assert score.norm == pytest.approx(float(_real_gradient(graph, x, score).norm()), rel=1e-9)


def test_features_likewise() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)).double()
    graph, x = gg.trace(net, torch.randn(2, 5, 3, dtype=torch.float64)), torch.randn(7, 5, 3, dtype=torch.float64)
    score = _score(graph, x, "1", "3")
    assert score.norm == pytest.approx(float(_real_gradient(graph, x, score).norm()), rel=1e-9)
    assert score.flops == 2 * 5 * 4 * 6


def test_random_combinations_keep_the_norm_in_expectation() -> None:
    net = nn.Sequential(nn.Linear(3, 96), nn.Tanh(), nn.Linear(96, 80), nn.Tanh(), nn.Linear(80, 2)).double()
    graph, x = gg.trace(net, torch.randn(2, 3, dtype=torch.float64)), torch.randn(16, 3, dtype=torch.float64)
    exact = _score(graph, x, "1", "3", most=128).norm
    squares = [_score(graph, x, "1", "3", most=16, seed=seed).norm ** 2 for seed in range(60)]
    assert sum(squares) / len(squares) == pytest.approx(exact**2, rel=0.15)


def test_a_connection_that_is_missing_stands_out_of_chance_and_one_that_says_nothing_does_not() -> None:
    """The target wants what the source holds: y = W x, of which the net in between knows nothing."""
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6))
    with torch.no_grad():
        net[2].weight.zero_()
    graph = gg.trace(net, torch.randn(2, 8))
    wanted = torch.randn(8, 6)
    told, blind = (SkipSignal(graph, [("1", "3")], rows=64) for _ in range(2))
    for signal, knows in ((told, True), (blind, False)):
        with Watch(graph.module, [signal]):
            for _ in range(20):
                x = torch.randn(64, 8)
                hidden = torch.tanh(net[0](x)).detach() if knows else torch.randn(64, 8)
                (graph.module(x) - hidden @ wanted).square().mean().backward()
    (yes,), (no,) = told.results(), blind.results()
    assert yes.above_chance > 3
    assert no.above_chance < 1.5
    assert yes.correlation > 5 * no.correlation
    assert 0 <= yes.correlation <= 1


def test_pairs_are_capped_and_silence_is_named() -> None:
    graph = gg.trace(Maps(), torch.randn(2, 2, 8, 8))
    signal = SkipSignal(graph, [("act1", "act4"), ("act2", "act3")], most_pairs=1)
    with pytest.raises(SignalError, match=r"`act4` was seen; run loss\.backward"):
        signal.results()
    assert len(list(signal.watches())) == 2
