"""The ledger's text and JSON; damaged, foreign and newer ones are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphgrow.errors import LedgerError
from graphgrow.network.ledger import SCHEMA_VERSION, Entry, Ledger
from tests.effort import examples

GOOD = [{"mutation": "widen(a.b, extra=3)", "seed": 5}, {"mutation": "split(c, units=[0, 2])", "seed": 0}]

ENTRIES = st.builds(
    Entry,
    st.one_of(
        st.builds("widen(layer{}, extra={})".format, st.integers(0, 9), st.integers(1, 99)),
        st.builds("split(layer{}:heads, copies={})".format, st.integers(0, 9), st.integers(2, 9)),
    ),
    st.integers(0, 2**63 - 1),
)


def _text(entries: Any, schema: Any = SCHEMA_VERSION, **more: Any) -> str:
    return json.dumps({"schema": schema, "entries": entries, **more})


@examples(30)
@given(entries=st.lists(ENTRIES, max_size=5))
def test_json_round_trip(entries: list[Entry]) -> None:
    ledger = Ledger(tuple(entries))
    assert Ledger.from_json(ledger.to_json()) == ledger
    assert len(ledger) == len(entries)
    assert list(ledger) == entries
    assert str(ledger).count("\n") == max(0, len(entries) - 1)


def test_the_schema_version_is_written() -> None:
    data = json.loads(Ledger((Entry("split(a)", 1),)).to_json())
    assert data == {"schema": SCHEMA_VERSION, "entries": [{"mutation": "split(a)", "seed": 1}]}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", "null", '"text"', "{}", '{"schema": 1}', '{"entries": []}',
        _text(GOOD, extra=1), _text({"0": 1}), _text("entries"), _text(GOOD, schema="1"), _text(GOOD, schema=0),
        _text(GOOD, schema=True), _text(GOOD, schema=1.0), _text(GOOD)[:-1], _text(GOOD) + "x",
    ],
)  # fmt: skip
def test_what_is_no_ledger_is_refused(text: str) -> None:
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger.from_json(text)


@pytest.mark.parametrize(
    "entry",
    [
        {}, [], "widen(a, extra=1)", None, {"mutation": "split(a)"}, {"seed": 1},
        {"mutation": "split(a)", "seed": 1, "by": "x"}, {"mutation": 3, "seed": 1},
        {"mutation": "split(a)", "seed": -1}, {"mutation": "split(a)", "seed": 2**63},
        {"mutation": "split(a)", "seed": True},
        {"mutation": "split(a)", "seed": 1.0}, {"mutation": "split(a)", "seed": "1"},
        {"mutation": "os.system(a)", "seed": 1}, {"mutation": "split a", "seed": 1},
        {"mutation": "__import__(os)", "seed": 1}, {"mutation": "split(a, copies=[2)", "seed": 1},
    ],
)  # fmt: skip
def test_a_damaged_entry_is_named(entry: Any) -> None:
    with pytest.raises(LedgerError, match="entry 2 of the ledger"):
        Ledger.from_json(_text([GOOD[0], entry]))


def test_a_ledger_is_read_without_the_passes_that_it_names() -> None:
    """It can be looked at; replaying says which pass is missing."""
    entries = [GOOD[0], {"mutation": "someones-own(a, depth=2)", "seed": 1}]
    ledger = Ledger.from_json(_text(entries))
    assert str(ledger).splitlines()[1] == "someones-own(a, depth=2) seed=1"


def test_a_newer_ledger_is_refused_with_a_remedy() -> None:
    with pytest.raises(LedgerError, match="install a newer one"):
        Ledger.from_json(_text(GOOD, schema=SCHEMA_VERSION + 1))


def test_what_follows_a_base() -> None:
    ledger = Ledger(tuple(Entry(item["mutation"], item["seed"]) for item in GOOD))  # type: ignore[arg-type]
    base = Ledger(ledger.entries[:1])
    assert ledger.after(base) == ledger.entries[1:]
    assert ledger.after(ledger) == ()
    assert base.after(ledger) is None
    assert ledger.after(Ledger((Entry("split(a)", 9),))) is None
    assert base.with_entry(ledger.entries[1]) == ledger
    assert len(base) == 1
