"""Constants made after the pattern of another tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.effort import examples
from tests.ops.probe import Draw, Probe, drawer, normal_tensor, op
from tests.ops.square import Case

FINITE = "free>free zero>free mean>free copy>copy"
UNREAD = "free>- zero>- mean>- copy>- share>-"  # only dtype and device are taken


def _like(target: Any, *arguments: Any) -> Callable[[Draw], nn.Module]:
    def build(draw: Draw) -> nn.Module:
        return Probe(lambda m: op(target, m.x, *arguments), {"x": normal_tensor(draw, draw(2, 4), draw(2, 4))})

    return build


CASES = [
    *(Case((target,), _like(target), {"x.0": FINITE, "x.1": FINITE}) for target in (torch.zeros_like, torch.ones_like)),
    Case((torch.full_like,), _like(torch.full_like, 1.5), {"x.0": FINITE, "x.1": FINITE}),
    *(Case((target,), _like(target, (3, 2)), {"x.0": UNREAD, "x.1": UNREAD}) for target in ("new_zeros", "new_ones")),
    Case(("new_full",), _like("new_full", (3,), 2.5), {"x.0": UNREAD, "x.1": UNREAD}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@examples(4)
@given(data=st.data())
def test_square(case: Case, data: st.DataObject) -> None:
    case.check(drawer(data))
