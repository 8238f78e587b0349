"""What a differentiable search shows: the live screen at several moments."""

from __future__ import annotations

import io

import torch
from rich.console import Console

from graphgrow.layers import Choice
from graphgrow.search.alternation import Site
from graphgrow.search.choosing_narration import MOST_ROWS, ChoosingNarration
from graphgrow.search.recipe import Alternation, Choosing, Task


def site(number: int, lead: float) -> Site:
    choice = Choice(("present", "conv-5"))
    choice.alpha.data = torch.tensor([0.0, lead])
    return Site(f"site{number}", choice, (False, False))


def screen(story: ChoosingNarration, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(story.screen())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.splitlines()


def told() -> ChoosingNarration:
    recipe = Choosing(Task("mine:fire"), alternation=Alternation(steps=200))
    return ChoosingNarration(Console(file=io.StringIO()), recipe)


def test_without_choices_no_steps_are_pretended() -> None:
    story = told()
    assert screen(story)[-1].strip() == "training the base 0 s"
    story.opened(0, (), ("mix-operators(a)",))
    assert screen(story)[-1].strip() == "round 0 0 s"


def test_each_site_has_its_leader() -> None:
    story = told()
    story.turned(50, [site(0, 2.0), site(1, -9.0)])
    first, second, line = screen(story)[-3:]
    assert first.split()[0] == "site0"
    assert first.split()[2:] == ["0.88", "conv-5"]
    assert second.split()[2:] == ["1.00", "present"]
    assert "step 50 of 200" in line


def test_of_many_sites_the_surest_are_left_out() -> None:
    story = told()
    sites = [site(number, 9.0 if number % 2 else 0.1 * number) for number in range(2 * MOST_ROWS)]
    story.turned(1, sites)
    lines = screen(story)
    assert [line.split()[0] for line in lines[1 : 1 + MOST_ROWS]] == [f"site{n}" for n in range(0, 2 * MOST_ROWS, 2)]
    assert lines[1 + MOST_ROWS] == f"and {MOST_ROWS} that are surer"
