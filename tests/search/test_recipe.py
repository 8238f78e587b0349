"""Recipes: those that come along, those from files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphgrow.errors import RecipeError
from graphgrow.recipes.tables import from_table, to_table
from graphgrow.search.job import Job, stream
from graphgrow.search.recipe import Choosing, Evolution, Task, read_recipe, recipe_names

WHOLE = """
population = 3
[task]
model = "graphgrow:mlp"
[[objectives]]
name = "loss"
worst = 2
"""


def test_the_recipes_that_come_along_are_read() -> None:
    assert "digits" in recipe_names("evolve")
    for name in recipe_names("evolve"):
        recipe = read_recipe(Evolution, "evolve", name)
        assert from_table(Evolution, to_table(recipe), "again") == recipe
        assert Job.from_json(Job("f", recipe, 3, 1, 2, (1, 2), (0, 1)).to_json()) == Job(
            "f", recipe, 3, 1, 2, (1, 2), (0, 1)
        )


def test_a_file_with_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(WHOLE, encoding="utf-8")
    recipe = read_recipe(Evolution, "evolve", str(file), {"population": 7, "seed": None})
    assert (recipe.population, recipe.seed, recipe.objectives[0].worst) == (7, 0, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("population = ", "is no TOML"),
        (WHOLE.replace("population", "poplation"), "unknown poplation; there are task, objectives, population"),
        ("population = 3", "task, objectives must be given"),
        (WHOLE.replace("= 3", "= 3.5"), r"population: got 3.5, wanted int"),
        (WHOLE.replace("= 3", "= true"), r"population: got True, wanted int"),
        (WHOLE.replace('"graphgrow:mlp"', "4"), r"task\.model: got 4, wanted str"),
        (WHOLE.replace("worst = 2", 'worst = "x"'), r"objectives\[0\]\.worst: got 'x', wanted float"),
        (WHOLE.replace('"loss"', '"lost"'), "there is no objective 'lost'; there are accuracy, loss, flops"),
        (WHOLE + '[[objectives]]\nname = "loss"', r"objectives are \['loss', 'loss'\]; name each once"),
        (WHOLE + '[budget]\nunit = "hours"', "budget.unit is 'hours'; there are steps, flops, seconds"),
        (
            WHOLE.replace("[[obj", 'passes = ["no_such_module"]\n[[obj'),
            "names no_such_module, which cannot be imported: No mod",
        ),
        ("parents = 'all'" + WHOLE, "parents is 'all'; there are population and base"),
        (WHOLE.replace("= 3", "= 0"), "population and offspring are whole numbers from 1 on"),
        (WHOLE + "[variation]\nrates = { widen = -1 }", "rates and scaling are numbers from 0 on"),
        (
            WHOLE + "[variation]\nrates = { wide = 1 }",
            r"variation\.rates names wide; there are add-branch, add-heads, ",
        ),
        (WHOLE + "[variation]\ncrossover = 2", "crossover is a share, from 0 to 1"),
        (WHOLE + "[budget]\nkeep = 1", "rungs is at least 1, keep between 0 and 1"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        read_recipe(Evolution, "evolve", str(file))


def test_a_search_grows_by_passes_that_there_are() -> None:
    with pytest.raises(RecipeError, match=r"grow names wide, deep; there are add-branch, "):
        Choosing(Task("graphgrow:mlp"), grow=("wide", "widen", "deep"))


def test_no_such_recipe() -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'digit'; did you mean 'digits'"):
        read_recipe(Evolution, "evolve", "digit")


def test_streams_are_apart_and_repeat() -> None:
    assert stream(0, "a", 1).random() == stream(0, "a", 1).random()
    assert len({stream(seed, name, n).random() for seed in (0, 1) for name in "ab" for n in (0, 1)}) == 8
