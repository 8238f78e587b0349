"""States that come together in an expression."""

from __future__ import annotations

import pytest

from graphgrow.ir.flow import Clash, Fill, add_fills
from graphgrow.planning.evaluate import _zip


def test_a_state_is_laid_over_the_positions_of_the_others() -> None:
    assert _zip([(Fill.FREE,), (Fill.ZERO, Fill.FREE), None], add_fills) == (Fill.FREE, Fill.FREE)
    assert _zip([None, None], add_fills) is None


def test_positions_that_no_operand_has_are_filled_by_nothing() -> None:
    """No model is known that gets there."""
    with pytest.raises(Clash, match="positions of an axis that no operand has"):
        _zip([(), None], add_fills)
