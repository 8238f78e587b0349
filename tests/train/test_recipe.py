"""Recipes are read strictly, and those that come along are sound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphgrow.errors import RecipeError
from graphgrow.recipes.files import parsed
from graphgrow.recipes.tables import from_table, to_table
from graphgrow.store.names import build
from graphgrow.train.optimizers import make_optimizer
from graphgrow.train.policy import make_policy
from graphgrow.train.recipe import GrowthPart, Recipe, open_recipe, recipe_names

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


def test_the_recipe_that_the_page_shows_is_read() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "growing.md"
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    recipe = read(shown)
    assert (recipe.model.name, recipe.data.name) == ("mine:model", "mine:data")
    assert recipe.growth.room(recipe.training.epochs) == 3  # it is time more often than it may grow


def test_defaults_and_whole_numbers_for_floats() -> None:
    recipe = read(SMALL)
    assert recipe.growth is None
    assert recipe.training.lr == 1.0
    assert isinstance(recipe.training.lr, float)
    assert from_table(Recipe, to_table(recipe), "again") == recipe


LISTED = """
[growth]
policy = "progressive"
interval = 1
until = 0.7
options = { stages = [["widen(layers.0, extra=2)"], ["widen(layers.0, extra=2)"]] }
"""


def test_what_is_listed_says_how_often_it_grows_and_there_has_to_be_time_for_it() -> None:
    recipe = read(SMALL + LISTED)
    assert recipe.growth is not None
    assert recipe.growth.most_stages == 2
    assert recipe.growth.room(3) == 2
    assert read(SMALL + "[growth]").growth == GrowthPart()
    assert GrowthPart().most_stages == 4
    assert GrowthPart(stages=0).most_stages == 0
    assert GrowthPart(interval=2, cool_down=3, until=0.5).room(24) == 3, "a round more than the cool-down"
    assert GrowthPart(plateau=2).room(16) is None
    refused = {
        LISTED + "stages = 1": "2 stages are listed, and growth.stages is 1; leave it out",
        LISTED.replace("0.7", "0.6"): "2 stages are listed, but within 1 epoch it is time to grow 1 time; train longer",
        LISTED.replace("interval = 1", "interval = 2"): "within 2 epochs it is time to grow 1 time",
    }
    for text, message in refused.items():
        with pytest.raises(RecipeError, match=message):
            read(SMALL + text)


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
        (SMALL.replace("epochs = 3", "epochs = 0"), "training.epochs is 0, wanted at least 1"),
        (SMALL.replace("epochs = 3", "epochs = 3\nanneal = 2.0"), "training.anneal is 2.0, wanted from 0 to 1"),
        (SMALL + "[growth]\nevery = 0", "growth.every is 0, wanted at least 1"),
        (SMALL + "[growth]\nuntil = -1", "growth.until is -1.0, wanted from 0 to 1"),
        (SMALL + "[growth]\nwarm_up = -5", "growth.warm_up is -5, wanted at least 0"),
        (SMALL + "[growth]\nboost = 0.5", "growth.boost is 0.5, wanted at least 1"),
        (
            SMALL + 'optimizer = "rmsprop"\n[growth]\nforget = true',
            "up to ten learning rates long; leave growth.forget",
        ),
        (SMALL.replace("epochs = 3", "epochs = 3\nprecision = 'half'"), "'half' is none of float32, bfloat16"),
        (SMALL.replace('"digits"', "5"), "data.name: got 5, wanted str"),
        (SMALL + "[growth]\noptions = 3", "growth.options: got 3"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(text)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe 'digits'; did you mean 'digits-dnm'"):
        open_recipe("digits")
    with pytest.raises(RecipeError, match=r"no recipe 'nowhere\.toml'"):
        open_recipe("nowhere.toml")
