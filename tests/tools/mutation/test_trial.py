"""A mistake is made in a copy alone, noticed by tests that look, and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.mutation.listed import MUTANTS, ROOT, Mutant
from tools.mutation.trial import made, make_copy, outcome, place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "root" / "graphgrow").mkdir(parents=True)
    (tmp_path / "root" / "passes").mkdir()
    (tmp_path / "root" / "tests").mkdir()
    (tmp_path / "root" / "graphgrow" / "__init__.py").write_text("")
    (tmp_path / "root" / "passes" / "__init__.py").write_text("")
    (tmp_path / "root" / "passes" / "double.py").write_text("def double(x):\n    return 2 * x\n")
    test = "from graphgrow.passes.double import double\n\n\ndef test_it():\n    assert double({}) == {}\n"
    (tmp_path / "root" / "tests" / "test_seeing.py").write_text(test.format(3, 6))
    (tmp_path / "root" / "tests" / "test_blind.py").write_text(test.format(0, 0))
    (tmp_path / "copy").mkdir()
    make_copy(tmp_path / "root", tmp_path / "copy")
    return tmp_path / "copy"


def test_a_mistake_is_noticed_by_a_test_that_looks(tree: Path, tmp_path: Path) -> None:
    seeing, blind, log = ("tests/test_seeing.py",), ("tests/test_blind.py",), tmp_path / "log"
    mutant = Mutant("passes/double.py", "2 * x", "3 * x")
    assert outcome(tree, seeing, 60, log) == "passed"
    with made(mutant, tree):
        assert outcome(tree, seeing, 60, log) == "failed", log.read_text()
        assert outcome(tree, blind, 60, log) == "passed"
    assert "2 * x" in (tree / place(mutant)).read_text()
    with made(Mutant("passes/double.py", "return 2 * x", "while True: pass"), tree):
        assert outcome(tree, seeing, 3, log) == "timed out"


def test_a_text_that_does_not_stand_there_once_is_an_error(tree: Path) -> None:
    for old in ("4 * x", "x"):
        with pytest.raises(ValueError, match="wanted once"), made(Mutant("passes/double.py", old, "0"), tree):
            pass


def test_every_mistake_is_one_and_has_its_tests() -> None:
    assert len({(m.path, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
    assert all(m.old != m.new and m.tests for m in MUTANTS)
    assert all((ROOT / test).is_file() for m in MUTANTS for test in m.tests)
