"""What a recipe says of growth, as objects."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graphgrow.train.growth import average_of, grower_of
from graphgrow.train.pace import Newcomers, Pace
from graphgrow.train.recipe import DataPart, GrowthPart, ModelPart, Recipe, TrainingPart
from tests.train import small

RECIPE = Recipe("tiny", "", ModelPart("graphgrow:mlp"), DataPart("digits"), TrainingPart(4), seed=3)


def test_a_recipe_without_growth_never_grows() -> None:
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = grower_of(RECIPE, graph, optimizer, None, small.loss)
    for _ in range(12):
        small.epoch(grower, optimizer)
        assert grower.propose(1.0) is None
    assert grower.graph is graph
    assert grower.decisions == []


@pytest.mark.parametrize(
    ("part", "rounds"),
    [
        (GrowthPart("net2net", interval=2, stages=2), [1, 3]),
        (GrowthPart("net2net", interval=2, stages=2, cool_down=3), [3, 7]),
        (GrowthPart("net2net", plateau=3, stages=1), [3]),
    ],
)
def test_it_grows_when_the_recipe_says(part: GrowthPart, rounds: list[int]) -> None:
    graph = small.graph()
    optimizer = small.adam(graph)
    grower = grower_of(replace(RECIPE, growth=part), graph, optimizer, None, small.loss)
    grown = []
    for index in range(9):
        small.epoch(grower, optimizer)
        if (proposal := grower.propose(1.0)) is not None:
            grower.apply(proposal)
            grown.append(index)
    assert grown == rounds


def test_a_budget_of_the_recipe_limits_it() -> None:
    graph = small.graph()
    optimizer = small.adam(graph)
    part = GrowthPart("net2net", interval=1, parameters=graph.parameter_count)
    grower = grower_of(replace(RECIPE, growth=part), graph, optimizer, None, small.loss)
    small.epoch(grower, optimizer)
    assert grower.propose(1.0) is None
    assert [one.verdict for one in grower.decisions] == ["declined"]


@pytest.mark.parametrize(
    ("part", "pace"),
    [
        (GrowthPart(), Pace(warm_up=100)),
        (GrowthPart(warm_up=7), Pace(warm_up=7)),
        (GrowthPart(boost=10.0, forget=True), Pace(warm_up=100, boost=10.0, forget=True)),
    ],
)
def test_the_pace_is_what_the_recipe_says(monkeypatch: pytest.MonkeyPatch, part: GrowthPart, pace: Pace) -> None:
    given: list[Pace] = []
    monkeypatch.setattr(Newcomers, "__init__", lambda _, __, mine: given.append(mine))
    graph = small.graph()
    grower_of(replace(RECIPE, growth=part), graph, small.adam(graph), None, small.loss)
    assert given == [pace]


def test_an_average_goes_a_share_of_the_way() -> None:
    module = torch.nn.Linear(2, 1)
    assert average_of(module, 0.0) is None
    averaged = average_of(module, 0.75)
    assert averaged is not None
    averaged.update_parameters(module)  # the first is taken as it is
    before = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(4.0)
    averaged.update_parameters(module)
    assert torch.allclose(averaged.module.get_parameter("weight"), before + 1.0)
