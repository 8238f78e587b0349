"""gg.warm_up: the first steps of what gg.apply made new, against those of a twin without."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import graphgrow as gg
from graphgrow.graph import Graph
from tests.train import small

GROWTHS = (["widen(0, extra=2)"], ["split(2)", "deepen(3, kind=mlp)"])


def _trained(steps: int) -> tuple[Graph, torch.optim.AdamW]:
    graph = small.graph()
    optimizer = torch.optim.AdamW(graph.module.parameters(), lr=1e-2, weight_decay=0.0)
    _train(graph, optimizer, steps)
    return graph, optimizer


def _train(graph: Graph, optimizer: Optimizer, steps: int) -> list[float]:
    """Steps on the whole task; the loss behind each."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        small.loss(graph.module).backward()
        optimizer.step()
        losses.append(float(small.loss(graph.module).detach()))
    return losses


def _grown(graph: Graph, optimizer: Optimizer) -> Graph:
    """By two calls with two seeds."""
    for seed, mutations in enumerate(GROWTHS):
        graph = gg.apply(graph, mutations, seed=seed, optimizer=optimizer)
    return graph


def _first_steps(warmed: bool) -> dict[str, torch.Tensor]:
    graph, optimizer = _trained(20)
    grown = _grown(graph, optimizer)
    if warmed:
        gg.warm_up(graph, grown, optimizer, steps=4)
    before = {name: p.detach().clone() for name, p in grown.module.named_parameters()}
    _train(grown, optimizer, 1)
    return {name: p.detach() - before[name] for name, p in grown.module.named_parameters()}


def test_new_entries_begin_at_a_part_of_their_step_and_shares_at_half_and_a_part() -> None:
    plain, slow = _first_steps(False), _first_steps(True)
    old, new, share = 1.0, 1 / 5, 1 / 2 + (1 - 1 / 2) / 5
    factors = {name: torch.full_like(step, old) for name, step in plain.items()}
    factors["0.weight"][6:] = factors["0.bias"][6:] = new
    factors["2.weight"][:, 6:] = new  # read with zero
    factors["4.weight"][:] = share
    for name in (name for name in factors if "deepen" in name):
        factors[name][:] = new
    exact = [name for name in factors if not name.startswith("2.")]  # what writes copies begins as they are read
    assert any("deepen" in name for name in exact)
    for name in exact:
        assert torch.allclose(slow[name], factors[name] * plain[name], rtol=1e-3, atol=1e-6), name
    assert torch.allclose(slow["2.weight"][:, 6:], new * plain["2.weight"][:, 6:], rtol=1e-3, atol=1e-6)


def test_a_trained_net_loses_nothing_in_the_steps_after_a_new_block() -> None:
    """The goal is 1.02 times what the loss was at most; without a warm-up a new block's first steps are too long."""
    worst = {}
    for warmed in (False, True):
        graph, optimizer = _trained(150)
        before = float(small.loss(graph.module).detach())
        grown = gg.apply(graph, "deepen(3, kind=mlp)", optimizer=optimizer)
        if warmed:
            gg.warm_up(graph, grown, optimizer)
        worst[warmed] = max(_train(grown, optimizer, 30)) / before
    assert worst[True] <= 1.02 < worst[False]


def test_it_ends_and_another_growth_may_follow() -> None:
    graph, optimizer = _trained(2)
    once = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    gg.warm_up(graph, once, optimizer, steps=3)
    _train(once, optimizer, 1)
    twice = gg.apply(once, "widen(0, extra=1)", optimizer=optimizer)
    gg.warm_up(once, twice, optimizer, steps=0)
    _train(twice, optimizer, 4)
    twin = copy.deepcopy(twice.module)
    other = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for module, mine in ((twice.module, optimizer), (twin, other)):
        mine.zero_grad()
        small.loss(module).backward()
        mine.step()
    assert all(torch.equal(a, b) for a, b in zip(twice.module.parameters(), twin.parameters(), strict=True))


def test_what_did_not_grow_is_refused() -> None:
    graph, optimizer = _trained(1)
    grown = gg.apply(graph, "widen(0, extra=2)", optimizer=optimizer)
    with pytest.raises(gg.TrainingError, match="the second graph did not grow from the first; give the graph before"):
        gg.warm_up(grown, graph, optimizer)
    with pytest.raises(gg.TrainingError, match="steps=-1: the warm-up takes 0 steps at least"):
        gg.warm_up(graph, grown, optimizer, steps=-1)
    with pytest.raises(gg.OptimizerError, match="trains none of the parameters of this graph"):
        gg.warm_up(graph, grown, torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
