"""The test that every file of rules has: each of its cases by the commuting square, on sizes that hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.effort import examples
from tests.ops.probe import drawer
from tests.ops.square import Case


def squares(cases: Sequence[Case], count: int) -> Callable[..., None]:
    """A test of the cases, each with so many examples in the profile `dev`."""

    @pytest.mark.parametrize("case", cases, ids=str)
    @examples(count)
    @given(data=st.data())
    def test(case: Case, data: st.DataObject) -> None:
        case.check(drawer(data))

    return test
