"""What a pass offers, and what it refuses with which words."""

from __future__ import annotations

import pytest

from graphgrow.errors import Declined, MutationError
from graphgrow.passes.split import Split
from graphgrow.passes.widen import Widen
from graphgrow.rewrite.contract import Refusal, offered, render

MUTATION = Widen("stem", 4)


def declines() -> None:
    raise Declined("the axis is frozen")


def test_a_mutation_is_offered_where_its_check_passes() -> None:
    assert offered(MUTATION, lambda: "whatever it returns") is MUTATION


def test_where_the_check_declines_the_refusal_names_the_site_and_the_reason() -> None:
    assert offered(MUTATION, declines) == Refusal("stem", "the axis is frozen")


def test_another_error_is_no_refusal() -> None:
    def fails() -> None:
        raise MutationError("an option makes no sense")

    with pytest.raises(MutationError, match="an option"):
        offered(MUTATION, fails)


def test_options_at_their_defaults_are_left_out_of_the_text() -> None:
    assert str(MUTATION) == "widen(stem, extra=4)"
    assert str(Split("stem")) == "split(stem)"
    assert str(Split("stem", units=(0, 2, 3, 4, 5), copies=3)) == "split(stem, units=[0, 2..5], copies=3)"
    assert render(True) == "true"
