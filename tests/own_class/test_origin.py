"""Numbers are read and written where they stand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from graphgrow.own_class.origin import Origin
from tests.own_class.test_marked import Part


def test_a_number_is_written_where_it_stands() -> None:
    config = SimpleNamespace(width=8, rates=[0.5, 0.25])
    model: Any = nn.Sequential(Part(config))
    for keys, value in (
        (("heads",), 4),
        (("window", 0), 9),
        (("config", "width"), 12),
        (("config", "rates", 1), 0.125),
    ):
        Origin("0", keys).write(model, value)
    assert (model[0].heads, model[0].window, config.width, config.rates) == (4, (9, 5), 12, [0.5, 0.125])
