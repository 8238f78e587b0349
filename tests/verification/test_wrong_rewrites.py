"""Every wrong rewrite of the table is flagged; the right ones that they were made from are not."""

from __future__ import annotations

import pytest

import graphgrow as gg
from tests.verification.wrong_rewrites import AT_ONE_SIZE, WRONG, Wrong


@pytest.mark.parametrize("name", WRONG)
def test_it_is_flagged(name: str) -> None:
    wrong = WRONG[name]
    verdict = gg.verify(*wrong.made(), modes=wrong.modes)
    assert verdict.preserved is False, verdict


@pytest.mark.parametrize("name", AT_ONE_SIZE)
def test_what_is_right_at_one_size_is_flagged(name: str) -> None:
    parent, child = AT_ONE_SIZE[name].made()
    assert gg.verify(parent, child, sizes=()).preserved is True
    assert gg.verify(parent, child).preserved is False


def _right() -> list[Wrong]:
    """Each model and mutation once, undamaged."""
    kinds = {(wrong.model, tuple(wrong.mutations)): wrong for wrong in [*WRONG.values(), *AT_ONE_SIZE.values()]}
    return [Wrong(wrong.model, wrong.mutations, lambda module: None) for wrong in kinds.values()]


@pytest.mark.parametrize("right", _right(), ids=lambda right: f"{right.model.__name__} {' '.join(right.mutations)}")
def test_what_they_were_made_from_is_right(right: Wrong) -> None:
    verdict = gg.verify(*right.made())
    assert verdict.preserved is True, verdict


def test_there_are_many() -> None:
    assert len(WRONG) >= 60
