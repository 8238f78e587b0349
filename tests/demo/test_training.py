"""Training to the plateau: when it stops, and what it leaves behind."""

from __future__ import annotations

import copy

import torch
from torch import nn

from graphgrow.data.evaluation import Score, score
from graphgrow.data.parts import Data, Part
from graphgrow.demo.training import Settings, train_to_plateau

QUICK = Settings(patience=3, max_epochs=20, settling=2)


def points(count: int, seed: int) -> Part:
    """Two classes that a line separates."""
    inputs = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return Part(inputs, (inputs[:, 0] > 0).long())


def training_of(rate: float) -> tuple[nn.Linear, torch.optim.Adam, Data, torch.Generator]:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    data = Data(points(64, 1), points(32, 2), points(32, 3), classes=2, source="points")
    return model, torch.optim.Adam(model.parameters(), lr=rate), data, torch.Generator().manual_seed(0)


def test_it_learns_and_the_rate_is_at_the_end_what_it_was() -> None:
    model, optimizer, data, generator = training_of(0.1)
    before = score(model, data.validation)
    told: list[tuple[int, Score]] = []
    epochs = train_to_plateau(model, optimizer, data, QUICK, generator, lambda *now: told.append(now))
    assert [epoch for epoch, _ in told] == list(range(1, epochs + 1))
    assert epochs <= QUICK.max_epochs + QUICK.settling
    after = score(model, data.validation)
    assert after.loss == min(now.loss for _, now in told) < before.loss
    assert after.accuracy > 0.9
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert not model.training


def test_what_makes_it_worse_is_taken_back_with_the_optimizer() -> None:
    model, optimizer, data, generator = training_of(0.1)
    train_to_plateau(model, optimizer, data, Settings(patience=5, max_epochs=30, settling=2), generator)
    weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    hopeless = Data(
        Part(data.training.inputs, 1 - data.training.targets), data.validation, data.test, classes=2, source="points"
    )
    epochs = train_to_plateau(model, optimizer, hopeless, QUICK, generator)
    assert epochs == 1 + QUICK.patience + QUICK.settling
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    kept = optimizer.state_dict()["state"]
    assert all(torch.equal(kept[i][name], state["state"][i][name]) for i in kept for name in kept[i])


def test_equal_seeds_give_equal_weights() -> None:
    found = []
    for _ in range(2):
        model, optimizer, data, generator = training_of(0.05)
        train_to_plateau(model, optimizer, data, QUICK, generator)
        found.append(model.weight.detach())
    assert torch.equal(*found)
