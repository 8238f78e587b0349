"""The syntax of mutations, whatever passes there are."""

from __future__ import annotations

import pytest

from graphgrow.errors import MutationError
from graphgrow.network.syntax import Written, read_syntax, split


def test_a_text_is_taken_apart() -> None:
    written = read_syntax(" some-pass ( a.b@2 , units = [1, 4..6], name=x,)")
    assert written == Written("some-pass", ((None, "a.b@2"), ("units", "[1, 4..6]"), ("name", "x")))


def test_commas_in_brackets_part_nothing() -> None:
    assert split("a, b=[1, [2, 3]], c", "all") == ["a", " b=[1, [2, 3]]", " c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widen", "a mutation reads"),
        ("Widen(a)", "cannot read"),
        ("widen(a); import os", "cannot read"),
        ("widen(a, 3)", "`3` has no option name"),
        ("widen(a, by=3, by=4)", "gives `by` twice"),
        ("widen(a, by=[1)", "a bracket is left open"),
    ],
)
def test_other_forms_are_refused(text: str, message: str) -> None:
    with pytest.raises(MutationError, match=message):
        read_syntax(text)
