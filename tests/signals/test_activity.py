"""Activity of groups: against numbers worked out from the activations themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import SignalError
from graphgrow.signals.activity import ActivitySignal
from graphgrow.signals.watch import Watch


def test_entropy_rank_and_dead_units_of_a_layer() -> None:
    net: Any = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    with torch.no_grad():
        net[0].bias[1] = -1e3  # never active
        net[0].weight[2] = 0  # constant
        net[0].bias[2] = 1.0
        net[0].weight[4] = 2 * net[0].weight[3]  # no direction of its own
        net[0].bias[3:] = 1e3
        net[0].bias[4] = 2e3
    graph = gg.trace(net, torch.randn(4, 6, dtype=torch.float64))
    signal = ActivitySignal(graph, samples=10_000)
    batches = [torch.randn(200, 6, dtype=torch.float64) for _ in range(3)]
    with Watch(graph.module, [signal]), torch.no_grad():
        for batch in batches:
            graph.module(batch)
    found = signal.results()["0"]
    hidden = torch.relu(net[0](torch.cat(batches))).detach()
    assert found.samples == 600
    assert found.dead.tolist() == [False, True, False, False, False]
    assert found.constant.tolist() == [False, True, True, False, False]
    assert found.entropy[1:3].tolist() == [0.0, 0.0]
    assert 0.3 < float(found.entropy[0]) < 0.9
    assert 0.8 < float(found.entropy[3]) < 1.0
    assert float(found.saturation[0]) == pytest.approx(
        float((hidden[:, 0] <= hidden[:, 0].max() / 64).double().mean()), abs=0.02
    )
    values = torch.linalg.svdvals(hidden - hidden.mean(0))
    shares = values / values.sum()
    expected = math.exp(-float(torch.special.xlogy(shares, shares).sum()))
    assert found.effective_rank == pytest.approx(expected, rel=1e-3)
    assert found.rank_share == pytest.approx(expected / 5, rel=1e-3)


@pytest.mark.parametrize("name", ["mixer", "mobilenet", "densenet", "unet", "lstm"])
def test_every_group_that_can_grow_is_measured_on_models_of_all_kinds(name: str) -> None:
    graph = gg.trace(f"graphgrow:{name}")
    signal = ActivitySignal(graph)
    args, kwargs = graph.inputs.sample(batch_size=8)
    with Watch(graph.module, [signal]), torch.no_grad():
        graph.module(*args, **kwargs)
    results = signal.results()
    assert set(results) == {group.name for group in graph.groups if group.frozen is None}
    for group, activity in results.items():
        assert activity.entropy.shape == (graph.group(group).size,)
        assert bool(((activity.entropy >= 0) & (activity.entropy <= 1)).all())
        assert 0 <= activity.rank_share <= 1


def test_the_users_random_state_is_left_alone() -> None:
    graph = gg.trace("graphgrow:resnet")
    args, kwargs = graph.inputs.sample(batch_size=8)
    state = torch.get_rng_state()
    with Watch(graph.module, [ActivitySignal(graph, samples=5)]), torch.no_grad():
        graph.module(*args, **kwargs)
    assert torch.equal(torch.get_rng_state(), state)


def test_asked_too_early() -> None:
    graph = gg.trace("graphgrow:mlp")
    with pytest.raises(SignalError, match="no batch was seen"):
        ActivitySignal(graph).results()
