"""Recipes are read strictly, and those that come along are sound."""

from __future__ import annotations

import pytest

from graphgrow.errors import TrainingError
from graphgrow.store.names import build
from graphgrow.train.optimizers import make_optimizer
from graphgrow.train.policy import make_policy
from graphgrow.train.recipe import Recipe, open_recipe, recipe_names

SMALL = """
name = "small"
summary = "nothing much"
[model]
name = "graphgrow:mlp"
[data]
name = "digits"
[training]
epochs = 3
lr = 1
"""


def test_defaults_and_whole_numbers_for_floats() -> None:
    recipe = Recipe.from_toml(SMALL)
    assert recipe.growth is None
    assert recipe.training.lr == 1.0
    assert isinstance(recipe.training.lr, float)
    assert Recipe.from_data(recipe.to_data()) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_along_names_what_there_is(name: str) -> None:
    recipe = open_recipe(name)
    assert recipe.name == name
    assert Recipe.from_data(recipe.to_data()) == recipe
    model, _ = build(recipe.model.name, **recipe.model.options)
    make_optimizer(recipe.training.optimizer, model, recipe.training.lr, recipe.training.weight_decay)
    assert recipe.growth is not None
    make_policy(recipe.growth.policy, **recipe.growth.options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is no TOML"),
        (SMALL.replace("epochs", "epoch"), "training has no key epoch; it has epochs, optimizer"),
        (SMALL.replace("epochs = 3", ""), "training lacks epochs"),
        (SMALL.replace("epochs = 3", "epochs = true"), "epochs is True, wanted int"),
        (SMALL.replace("epochs = 3", "epochs = 0"), "at least 1"),
        (SMALL.replace('"digits"', "5"), "data: name is 5, wanted str"),
        (SMALL + "[growth]\noptions = 3", "growth: options is 3"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Recipe.from_toml(text)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(TrainingError, match=r"no recipe 'digits'; there are cifar10-dnm, digits-dnm.*\.toml file"):
        open_recipe("digits")
    with pytest.raises(TrainingError, match=r"cannot read nowhere\.toml"):
        open_recipe("nowhere.toml")
