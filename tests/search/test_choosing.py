"""A whole differentiable search: rounds, growth in between, the gap, and a ledger that rebuilds what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import graphgrow as gg
from graphgrow.data.evaluation import score
from graphgrow.data.names import load_data
from graphgrow.errors import RecipeError, SearchError
from graphgrow.layers import Choice
from graphgrow.search.choosing import choose, open_sites
from graphgrow.search.recipe import Alternation, Choosing, Task, read_recipe, recipe_names
from tests.preserved import assert_same_bits
from tests.search.small import data, model

TASK = Task("tests.search.small:model", "tests.search.small:data")
RECIPE = Choosing(
    TASK, choices=("conv-5", "gelu", "max-pool"), rounds=2, grow=("widen",), base=20, finish=10,
    alternation=Alternation(steps=12, every=1, warm_up=0.25, learning_rate=0.2),
)  # fmt: skip


def test_rounds_are_told_and_the_ledger_rebuilds_the_network(tmp_path: Path) -> None:
    chosen = choose(RECIPE)
    first, second = chosen.rounds
    assert first.grown == ()
    assert [text.partition("(")[0] for text in second.grown] == ["widen"]
    for record in chosen.rounds:
        assert record.choices
        for choice in record.choices:
            assert choice.kept in choice.names
            assert len(choice.shares) == len(choice.steps) > 10
            assert len(choice.shares[0]) == len(choice.names)
    parts = load_data(TASK.data)
    assert second.accuracy == score(chosen.graph.module, parts.validation).accuracy
    assert second.test == score(chosen.graph.module, parts.test).accuracy
    assert second.parameters == chosen.graph.parameter_count
    assert not any(isinstance(part, Choice) for part in chosen.graph.module.modules())
    words = [entry.mutation.partition("(")[0] for entry in chosen.graph.ledger]
    assert words.count("mix-operators") == words.count("settle-operators") == sum(len(r.choices) for r in chosen.rounds)
    loaded = gg.load(gg.save(chosen.graph, tmp_path), model())
    assert_same_bits(loaded.module, chosen.graph.module)


def test_it_follows_from_the_seed() -> None:
    short = replace(RECIPE, rounds=1)
    torch.manual_seed(1)
    first = choose(short)
    torch.manual_seed(2)
    again = choose(short)
    assert_same_bits(first.graph.module, again.graph.module)
    assert first.rounds[0].choices == again.rounds[0].choices


def test_the_gap_is_what_closing_changes() -> None:
    """With hardly any training the mixture is far from one operator, and closing it is seen."""
    record = choose(replace(RECIPE, rounds=1, alternation=replace(RECIPE.alternation, steps=2))).rounds[0]
    assert record.loss_open != record.loss_closed
    sure = replace(RECIPE.alternation, steps=60, cold=1e-3, learning_rate=0.5, warm_up=0.0)
    record = choose(replace(RECIPE, rounds=1, alternation=sure)).rounds[0]
    assert record.loss_open == pytest.approx(record.loss_closed, abs=1e-3)


def test_a_random_choice_has_the_same_steps_and_no_course() -> None:
    record = choose(replace(RECIPE, rounds=1, decide="random")).rounds[0]
    assert all(choice.shares == () for choice in record.choices)


def test_sites_and_choices_are_chosen_by_name() -> None:
    graph = gg.trace(model(), data().training.inputs[:2])
    assert [str(m) for m in open_sites(graph, ["0"], ["conv-5", "gelu"])] == ["mix-operators(0, choices=[conv-5])"]
    assert [m.site for m in open_sites(graph, ["*"], ["conv-5", "gelu"])] == ["0", "2"]
    with pytest.raises(SearchError, match="no site named conv9 offers one of the choices"):
        open_sites(graph, ["conv9"], [])


def test_what_is_refused() -> None:
    with pytest.raises(RecipeError, match="decide is 'best'"):
        replace(RECIPE, decide="best")
    with pytest.raises(RecipeError, match="the temperature falls from hot to cold"):
        Choosing(TASK, alternation=Alternation(hot=0.1, cold=1.0))
    with pytest.raises(SearchError, match="settle-activation offers no mutation in round 1"):
        choose(replace(RECIPE, grow=("settle-activation",)))


def test_the_recipes_that_come_along_are_read() -> None:
    assert "digits" in recipe_names("search")
    for name in recipe_names("search"):
        assert read_recipe(Choosing, "search", name).rounds >= 1
