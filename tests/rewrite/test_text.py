"""Mutations as text: a round trip, and errors that quote what was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.errors import LedgerError, MutationError
from graphgrow.network.ledger import Entry
from graphgrow.passes.split import Split
from graphgrow.passes.widen import Widen
from graphgrow.rewrite.text import mutations_of, parse_mutation
from tests.effort import examples

PARTS = st.sampled_from(["layer1", "0", "conv_2", "attn", "Block", "_x"])
SITES = st.builds(
    "{}{}".format,
    st.lists(PARTS, min_size=1, max_size=4).map(".".join),
    st.sampled_from(["", ":heads", ":group_width2", ":0", "@2"]),
)


@examples(40)
@given(site=SITES, extra=st.integers(-5, 10**6))
def test_widen_round_trip(site: str, extra: int) -> None:
    mutation = Widen(site, extra)
    assert parse_mutation(str(mutation)) == mutation


@examples(40)
@given(site=SITES, units=st.lists(st.integers(0, 99), max_size=4), copies=st.integers(2, 9))
def test_split_round_trip(site: str, units: list[int], copies: int) -> None:
    mutation = Split(site, tuple(units), copies)
    assert parse_mutation(str(mutation)) == mutation


@pytest.mark.parametrize(
    ("mutation", "text"),
    [
        (Widen("layer1.0.conv1", 16), "widen(layer1.0.conv1, extra=16)"),
        (Split("a"), "split(a)"),
        (Split("a:heads", (0, 3)), "split(a:heads, units=[0, 3])"),
        (Split("a", copies=3), "split(a, copies=3)"),
    ],
)
def test_the_text_names_options_that_are_not_the_default(mutation: Widen | Split, text: str) -> None:
    assert str(mutation) == text
    assert parse_mutation(text) == mutation


@pytest.mark.parametrize(
    "text",
    [" widen ( a.b ,extra = 3 ) ", "widen(group=a.b, extra=3)", "widen(extra=3, group=a.b)", "widen(a.b, extra=3,)"],
)
def test_blanks_and_names_are_free(text: str) -> None:
    assert parse_mutation(text) == Widen("a.b", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("widen", "a mutation reads"),
        ("widen(a, extra=3", "cannot read"),
        ("widen(a, extra=3))", "wants int, not '3\\)'"),
        ("Widen(a, extra=3)", "cannot read"),
        ("grow(a, extra=3)", "there is no pass `grow`; there are .*split, .*widen"),
        ("widen(a, extra=3); import os", "cannot read"),
        ("widen(a, 3)", "`3` has no option name"),
        ("widen(a extra=3)", "no option `a extra`; it has group, extra; is a comma missing?"),
        ("widen(a)", "lacks extra"),
        ("widen(extra=3)", "lacks group"),
        ("widen(a, extra=3, extra=4)", "gives `extra` twice"),
        ("widen(a, group=b, extra=3)", "gives `group` twice"),
        ("widen(a, more=3)", "no option `more`; it has group, extra"),
        ("widen(a, extra=three)", "`extra` wants int, not 'three'"),
        ("widen(a, extra=1.5)", "`extra` wants int"),
        ("split(a, units=3)", "`units` wants a list in brackets"),
        ("split(a, units=[1, x])", "`units` wants int, not 'x'"),
        ("split(a, units=[1, 2)", "a bracket is left open"),
        ("split(a, units=1])", "a bracket is left open"),
        (3, "cannot read 3: a mutation reads"),
    ],
)
def test_errors_say_what_was_seen(text: str, message: str) -> None:
    with pytest.raises(MutationError, match=message):
        parse_mutation(text)


@pytest.mark.parametrize("text", ["grow(a, extra=3)", "widen(a)", "split(a, copies=two)", "split(a, by=2)"])
def test_the_entry_that_names_something_unknown_is_named(text: str) -> None:
    good = Entry("widen(a.b, extra=3)", 5)
    assert mutations_of([good]) == [Widen("a.b", 3)]
    with pytest.raises(LedgerError, match="entry 2 of the ledger cannot be read: "):
        mutations_of([good, Entry(text, 0)])


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("split(a, units=[0..3])", (0, 1, 2, 3)),
        ("split(a, units=[7, 9..12, 20])", (7, 9, 10, 11, 12, 20)),
        ("split(a, units=[0, 1, 2])", (0, 1, 2)),
        ("split(a, units=[3, 2, 1, 0])", (3, 2, 1, 0)),
    ],
)
def test_runs_of_units(text: str, units: tuple[int, ...]) -> None:
    mutation = parse_mutation(text)
    assert mutation.units == units  # type: ignore[attr-defined]
    assert str(mutation) == text


@pytest.mark.parametrize("run", ["4..1", "0..99999999999", "1..", "..4", "1...4", "-1..4"])
def test_runs_that_are_none(run: str) -> None:
    with pytest.raises(MutationError, match="units"):
        parse_mutation(f"split(a, units=[{run}])")
