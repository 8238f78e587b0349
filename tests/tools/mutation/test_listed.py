"""Each listed mistake has one place in today's sources, so that none falls out of the list in silence."""

from __future__ import annotations

import pytest

from tools.mutation.listed import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.path}: {mutant.old[:30]}")
def test_it_has_its_place(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert all((ROOT / test).exists() for test in mutant.tests)
