"""Recipes are read strictly, and those that come along are sound."""

from __future__ import annotations

import pytest

from graphgrow.errors import RecipeError
from graphgrow.recipes.files import parsed
from graphgrow.recipes.tables import from_table, to_table
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


def read(text: str) -> Recipe:
    return from_table(Recipe, parsed(text, "small", ".toml"), "small")


def test_defaults_and_whole_numbers_for_floats() -> None:
    recipe = read(SMALL)
    assert recipe.growth is None
    assert recipe.training.lr == 1.0
    assert isinstance(recipe.training.lr, float)
    assert from_table(Recipe, to_table(recipe), "again") == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_along_names_what_there_is(name: str) -> None:
    recipe = open_recipe(name)
    assert recipe.name == name
    assert from_table(Recipe, to_table(recipe), "again") == recipe
    model, *_ = build(recipe.model.name, **recipe.model.options)
    make_optimizer(recipe.training.optimizer, model, recipe.training.lr, recipe.training.weight_decay)
    assert recipe.growth is not None
    make_policy(recipe.growth.policy, **recipe.growth.options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is no TOML"),
        (SMALL.replace("epochs", "epoch"), "training: unknown epoch; there are epochs, optimizer"),
        (SMALL.replace("epochs = 3", ""), "training: epochs must be given"),
        (SMALL.replace("epochs = 3", "epochs = true"), "training.epochs: got True, wanted int"),
        (SMALL.replace("epochs = 3", "epochs = 0"), "at least 1"),
        (SMALL.replace("epochs = 3", "epochs = 3\nprecision = 'half'"), "'half' is none of float32, bfloat16"),
        (SMALL.replace('"digits"', "5"), "data.name: got 5, wanted str"),
        (SMALL + "[growth]\noptions = 3", "growth.options: got 3"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(text)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'digits'; there are cifar10-dnm, digits-dnm"):
        open_recipe("digits")
    with pytest.raises(RecipeError, match=r"no recipe 'nowhere\.toml'"):
        open_recipe("nowhere.toml")
